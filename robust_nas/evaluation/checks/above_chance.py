"""There is robustness to claim: the interval of the robust accuracy lies above chance.

chance: the share of the largest class, or 1/K where that is more
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding


class AboveChance(SanityCheck):
    """The lower bound of Wilson's 95 % interval of the robust accuracy is above chance."""

    title: ClassVar[str] = "robustness above chance"
    allowed: ClassVar[str] = "interval above chance"
    free: ClassVar[bool] = True
    name: Literal["above-chance"] = "above-chance"

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return WARN where the interval reaches down to chance."""
        from robust_nas.statistics.proportions import wilson

        n = state.common
        correct = int(state.right[:n].sum())
        low, _ = wilson(correct, n)
        allowed = f"interval above {state.chance:.3g}"
        if low > state.chance:
            text = "the interval of the robust accuracy lies above chance"
            return [self.finding("PASS", text, correct / n, n, allowed=allowed)]
        text = "there is no robustness to claim at this eps: the interval reaches down to chance"
        return [self.finding("WARN", text, correct / n, n, allowed=allowed)]
