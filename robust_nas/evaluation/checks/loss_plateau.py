"""The attack with the most steps had converged: its loss no longer rose (Pintor et al., 2022).

    gain(t) = max_{s <= t} L(s) - L(0)      late = 1 - gain(0.9 T) / gain(T), the mean over the survivors

PASS up to 0.1, FAIL above 0.5; FAIL also where the loss never rose on more than a tenth of the survivors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost
from robust_nas.evaluation.traces import late_gain

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status

RESOLVED = 1e-4  # eps below which float32 losses cannot tell a step from rounding
RISING, FAR = 0.1, 0.5
FLAT = 0.1  # share of the survivors


class LossPlateau(SanityCheck):
    """The loss of the attack with the most steps had settled, on the examples that survived it."""

    title: ClassVar[str] = "loss plateau"
    allowed: ClassVar[str] = "below 0.1 of the gain"
    free: ClassVar[bool] = True
    name: Literal["loss-plateau"] = "loss-plateau"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether any attack has a trace, at an eps that float32 resolves."""
        return bool(state.traces) and state.threat_model.eps >= RESOLVED

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return the share of the gain that came in the last tenth of the steps."""
        record = max(state.traces, key=lambda trace: len(trace.loss))
        kept = state.right[record.indices]
        steps = len(record.loss) - 1
        if not kept.any():
            return [self.finding("PASS", "no image survived to look at")]
        late = late_gain(record.loss[:, kept])
        flat = late.isnan()
        value = float(late[~flat].mean()) if not flat.all() else None
        status: Status = "PASS"
        text = f"{record.attack.label}: the loss had settled by its {steps} steps"
        if float(flat.float().mean()) > FLAT:
            status = "FAIL"
            text = (
                f"{record.attack.label}: on {int(flat.sum())} survivors the loss never rose: "
                "no usable gradient"
            )
        elif value is not None and value > RISING:
            status = "FAIL" if value > FAR else "WARN"
            text = f"{record.attack.label}: the loss was still rising at the last of {steps} steps; take more"
        return [self.finding(status, text, value, int(kept.sum()))]
