"""Natural training: L = CE(f(x), y)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.training.loss import STEP_PASSES, Loss, LossValue, cross_entropy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class Natural(Loss):
    """Cross-entropy on clean images."""

    plain: ClassVar[bool] = True

    name: Literal["natural"] = "natural"

    @property
    def passes(self) -> int:
        """Return 3: one training step."""
        return STEP_PASSES

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> LossValue:
        """Return the cross-entropy on images `[B, C, H, W]`."""
        logits = model(images)
        return LossValue(cross_entropy(logits, labels), logits)
