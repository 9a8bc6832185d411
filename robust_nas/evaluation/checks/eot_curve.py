"""The passes per gradient of a random model are enough (Athalye et al., 2018): more of them do not lower accuracy.

PGD-10 with 1, E/4, E and 4E passes, E = `deployed.eot`. PASS up to one image, FAIL above 10 points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks import PGD
from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost, Selection
from robust_nas.evaluation.thresholds import EOT_FALL

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status


class EOTCurve(SanityCheck):
    """Accuracy under PGD-10 does not fall with more passes per gradient than the rule declares."""

    title: ClassVar[str] = "EOT sample curve"
    allowed: ClassVar[str] = "no further fall"
    selection: ClassVar[Selection] = "right"
    name: Literal["eot-curve"] = "eot-curve"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether the model was declared random."""
        return state.predictor.random

    def _attacks(self, state: EvaluationState) -> dict[int, PGD]:
        declared = state.rule.eot
        counts = sorted({1, max(1, declared // 4), declared, 4 * declared})
        return {count: PGD(**state.limits, steps=10, eot=count) for count in counts}

    def cost(self, state: EvaluationState) -> int:
        """Return the passes of all points of the curve."""
        attacks = self._attacks(state).values()
        return sum(attack.passes.total * attack.eot + state.judging_passes for attack in attacks)

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return by how much accuracy falls beyond the declared passes."""
        accuracies = {}
        for count, attack in self._attacks(state).items():
            judged = state.attempt(attack, indices, cost, f"{self.title} {count}")
            accuracies[count] = float(judged.right.float().mean())
        fall = accuracies[state.rule.eot] - accuracies[max(accuracies)]
        listed = ", ".join(f"{count}: {100 * value:.1f} %" for count, value in accuracies.items())
        status: Status = "PASS" if fall <= 1 / len(indices) else "FAIL" if fall > EOT_FALL else "WARN"
        text = f"accuracy under PGD-10 by passes per gradient: {listed}"
        text += "" if status == "PASS" else "; raise deployed.eot"
        return [self.finding(status, text, fall, len(indices))]
