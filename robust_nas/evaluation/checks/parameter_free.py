"""An attack chose its own step sizes (Croce and Hein, 2020): a fixed one may not suit this model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding


class ParameterFree(SanityCheck):
    """At least one attack of the list is parameter-free."""

    title: ClassVar[str] = "parameter-free attack"
    allowed: ClassVar[str] = "at least 1 APGD"
    free: ClassVar[bool] = True
    name: Literal["parameter-free"] = "parameter-free"

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return WARN where every attack had fixed step sizes."""
        strong = [row.label for row in state.rows if row.attack.parameter_free]
        if strong:
            return [self.finding("PASS", f"{', '.join(strong)} chose their own step sizes", len(strong))]
        text = (
            "every attack had a fixed step size that may not suit this model; "
            "use the suite cascade or autoattack"
        )
        return [self.finding("WARN", text, 0)]
