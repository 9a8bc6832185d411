"""There is robustness to claim: the interval of the robust accuracy lies above chance.

chance: what a constant answer gets right, the share of the largest class (of K classes, at least 1/K)
"""

from __future__ import annotations

import dataclasses
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
        largest, total = int(state.labels.bincount().max()), len(state.labels)
        allowed = f"above {state.chance:.3g}: largest class {largest} of {total}"
        if low > state.chance:
            text = "the interval of the robust accuracy lies above chance"
            return [self.finding("PASS", text, correct / n, n, allowed=allowed)]
        text = (
            f"there is no robustness to claim at this eps: the interval of {correct} of {n} reaches down to {low:.3g}, "
            f"chance is {state.chance:.3g}, "
            f"the share of the largest class ({largest} of {total} images)"
        )
        finding = self.finding("WARN", text, correct / n, n, allowed=allowed)
        return [dataclasses.replace(finding, next_step=MORE if correct / n > state.chance else DEFEND)]


MORE = "evaluate more images: the robust accuracy is above chance, but its interval is too wide to show it"
DEFEND = "train the model against attacks (robust-nas train), or evaluate it at a smaller eps"
