"""The model gives logits, not probabilities: a softmax at the end starves the gradients of every loss.

probabilities: all outputs in 0..1, and |sum_k z_k - 1| < 1e-3 on every image       (Croce and Hein, 2020)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost
from robust_nas.evaluation.thresholds import SUM_OF_PROBABILITIES

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding


class Logits(SanityCheck):
    """The outputs are no probabilities."""

    title: ClassVar[str] = "logits, not probabilities"
    allowed: ClassVar[str] = "no probabilities"
    free: ClassVar[bool] = True
    name: Literal["logits"] = "logits"

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return FAIL where the clean outputs are probabilities."""
        z = state.clean_logits
        sums = (z.sum(1) - 1).abs()
        probabilities = bool(((z >= 0) & (z <= 1)).all()) and bool((sums < SUM_OF_PROBABILITIES).all())
        off = float(sums.max()) if z.isfinite().all() else None
        if probabilities:
            text = (
                "the model ends in a softmax, which starves the gradients of every loss; evaluate its logits"
            )
            return [self.finding("FAIL", text, off, len(z))]
        return [self.finding("PASS", "the outputs are no probabilities", off, len(z))]
