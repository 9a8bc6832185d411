"""The perturbations lie in the ball and in the box, measured in float64 after every attack (Carlini et al., 2019).

An attack that leaves them stops the evaluation (`attacks/checks.py`), so this finding reports the largest one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding


class Perturbation(SanityCheck):
    """The largest perturbation of all attacks."""

    title: ClassVar[str] = "perturbation re-measured"
    allowed: ClassVar[str] = "at most eps"
    free: ClassVar[bool] = True
    name: Literal["perturbation"] = "perturbation"

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return the largest perturbation, in the norm of the threat model."""
        text = "every adversarial image lies in the ball and in the box, measured again in float64"
        attacked = sum(row.attacked for row in state.rows)
        allowed = f"at most eps {state.threat_model.eps:.6g}"
        return [self.finding("PASS", text, state.largest, attacked, allowed=allowed)]
