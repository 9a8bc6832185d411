"""Clean images are accepted: a detector that rejects them is right under any attack, and of no use (our choice).

WARN where the Wilson interval of the share of clean test images that are rejected lies above the rate that the defence
was calibrated to, or above 10 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.thresholds import FALSE_ALARMS

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.cost import Cost
    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding


class FalseAlarms(SanityCheck):
    """The share of clean images that a defence rejects, which all count as right under attack."""

    title: ClassVar[str] = "clean images are accepted"
    allowed: ClassVar[str] = "an interval that reaches down to the rate that is allowed"
    free: ClassVar[bool] = True
    name: Literal["false-alarms"] = "false-alarms"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether the model has a defence that rejects images."""
        from robust_nas.evaluation.defended import defended_in

        return state.predictor.abstains and defended_in(state.predictor) is not None

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return the share of rejections of the first draw."""
        from robust_nas.evaluation.defended import defended_in
        from robust_nas.statistics.proportions import wilson

        defended = defended_in(state.predictor)
        declared = None if defended is None else defended.defence.false_alarm_rate
        limit = FALSE_ALARMS if declared is None else min(declared, FALSE_ALARMS)
        rejected, total = int((state.clean_logits.argmax(1) == state.classes).sum()), len(state.labels)
        low, _ = wilson(rejected, total)
        text = f"{rejected} of {total} clean images are rejected"
        if low > limit:
            text += ", and count as right under every attack: report this share with the figure, or calibrate again"
        status: Literal["WARN", "PASS"] = "WARN" if low > limit else "PASS"
        allowed = f"its interval reaches down to {limit:g}"
        return [self.finding(status, text, rejected / total, total, allowed=allowed)]
