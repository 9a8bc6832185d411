"""What hooks and steps know of the training that they take part in, and the batch that they are given.

Shapes: images are float `[B, C, H, W]` in 0..1, labels int64 `[B]`; with several ranks B counts this rank's rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

from robust_nas.distributed import ALONE, Ranks
from robust_nas.lazy import torch
from robust_nas.training.loss import Loss, LossValue, cross_entropy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from robust_nas.nets import CellNetwork


class Batch(NamedTuple):
    """This rank's rows of one batch, augmented."""

    images: Tensor  # [B, C, H, W]
    labels: Tensor  # [B]
    indices: Tensor  # [B], of the images in the training split, on the host
    share: float = 1.0  # of the whole batch, 0..1: means over the rows are weighted by it


@dataclass(frozen=True, kw_only=True)
class TrainingContext:
    """A training as its hooks and its step see it."""

    network: nn.Module
    loss: Loss
    generator: Generator  # of every draw of the training
    epochs: int = 1
    steps: int = 1  # of an epoch
    batch_size: int = 1  # of the whole batch
    bf16: bool = False
    auxiliary_weight: float = 0.0
    ranks: Ranks = ALONE

    def value(self, images: Tensor, labels: Tensor) -> LossValue:
        """Return the recipe's loss, with that of the auxiliary head, in the recipe's precision."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            value = self.loss(self.network, images, labels, self.generator)
            if not self.auxiliary_weight:
                return value
            logits = cast("CellNetwork", self.network).auxiliary_logits(images)
            return LossValue(value.loss + self.auxiliary_weight * cross_entropy(logits, labels), value.logits)
