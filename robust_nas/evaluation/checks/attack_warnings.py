"""The attacks' own doubts about the model or their result, such as those of AutoAttack (Croce and Hein, 2020)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding


class AttackWarnings(SanityCheck):
    """No attack has flagged the model."""

    title: ClassVar[str] = "AutoAttack's own check"
    allowed: ClassVar[str] = "no warning"
    free: ClassVar[bool] = True
    name: Literal["attack-warnings"] = "attack-warnings"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether any attack has flagged the model."""
        return bool(state.flags)

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return WARN for every flag."""
        return [
            replace(self.finding("WARN", flag), name=name or self.title) for flag, name in state.flags.items()
        ]
