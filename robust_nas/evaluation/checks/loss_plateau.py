"""The attack with the most steps had converged: its loss no longer rose (Pintor et al., 2022).

    gain(t) = max_{s <= t} L(s) - L(0)      late = 1 - gain(0.9 T) / gain(T), the mean over the survivors

PASS up to 0.1, FAIL above 0.5. Where on more than a tenth of the survivors no loss of any attack rose: FAIL, or WARN
where they all are a cross-entropy of exactly 0, which in float32 cannot rise (a confident model, not a masked one).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost
from robust_nas.evaluation.thresholds import FAR_FROM_SETTLED, LATE_GAIN, NEVER_ROSE, RESOLVED_EPS
from robust_nas.evaluation.traces import TraceRecord, late_gain
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status


class LossPlateau(SanityCheck):
    """The loss of the attack with the most steps had settled, on the examples that survived it."""

    title: ClassVar[str] = "loss plateau"
    allowed: ClassVar[str] = "below 0.1 of the gain"
    free: ClassVar[bool] = True
    name: Literal["loss-plateau"] = "loss-plateau"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether any attack has a trace, at an eps that float32 resolves."""
        return bool(state.traces) and state.threat_model.eps >= RESOLVED_EPS

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return the share of the gain that came in the last tenth of the steps."""
        record = max(state.traces, key=lambda trace: len(trace.loss))
        kept = state.right[record.indices]
        steps = len(record.loss) - 1
        if not kept.any():
            return [self.finding("PASS", "nothing to test: no image survived")]
        late = late_gain(record.loss[:, kept])
        value = float(late.nanmean()) if not late.isnan().all() else None
        flat, saturated = _never_rose(state.traces, state.right)
        survivors = int(state.right.sum())
        status: Status = "PASS"
        text = f"{record.attack.label}: the loss had settled by its {steps} steps"
        if flat > NEVER_ROSE * survivors:
            status = "FAIL"
            text = f"on {flat} survivors the loss of no attack ever rose: no usable gradient"
        elif flat + saturated > NEVER_ROSE * survivors:
            status = "WARN"
            text = (
                f"on {saturated} survivors the cross-entropy is exactly 0 in float32, and cannot rise; add an attack "
                "on the margin, such as those of the suite cascade"
            )
        elif value is not None and value > LATE_GAIN:
            status = "FAIL" if value > FAR_FROM_SETTLED else "WARN"
            text = f"{record.attack.label}: the loss was still rising at the last of {steps} steps; take more"
        return [self.finding(status, text, value, int(kept.sum()))]


def _never_rose(traces: Sequence[TraceRecord], right: Tensor) -> tuple[int, int]:
    """Return on how many survivors (`right` `[N]`) no attack's loss rose, and of how many more it was always 0."""
    rose = torch.zeros_like(right)
    traced, saturated = rose.clone(), right.clone()
    for record in traces:
        traced[record.indices] = True
        rose[record.indices] |= ~late_gain(record.loss).isnan()
        always_0 = (
            (record.loss == 0).all(0) if record.attack.saturates else torch.zeros_like(record.ever_wrong)
        )
        saturated[record.indices] &= always_0
    flat = right & traced & ~rose
    return int((flat & ~saturated).sum()), int((flat & saturated).sum())
