"""The model is as it was before the attacks: parameters, buffers, gradients and modes, by their hash."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding


class UntouchedModel(SanityCheck):
    """Nothing in the model changed while it was attacked."""

    title: ClassVar[str] = "model untouched"
    allowed: ClassVar[str] = "0 changes"
    free: ClassVar[bool] = True
    name: Literal["untouched-model"] = "untouched-model"

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return FAIL where the model changed."""
        if state.untouched:
            return [self.finding("PASS", "parameters, buffers, gradients and modes are as they were", 0)]
        text = (
            "the model changed while it was attacked: it learns or keeps statistics in its forward pass "
            "(layers in a plain list instead of a ModuleList stay in training mode)"
        )
        return [self.finding("FAIL", text, 1)]
