"""The model's logits are finite, on the images as they are and under every attack."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding


class FiniteLogits(SanityCheck):
    """No answer was NaN or infinite."""

    title: ClassVar[str] = "finite logits"
    allowed: ClassVar[str] = "0 images"
    free: ClassVar[bool] = True
    name: Literal["finite-logits"] = "finite-logits"

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return FAIL where any logit was not finite."""
        count, images = state.not_finite, len(state.labels)
        if count:
            text = f"{count} times an image had logits that are NaN or infinite"
            return [self.finding("FAIL", text, count, images)]
        return [self.finding("PASS", "all logits were finite", count, images)]
