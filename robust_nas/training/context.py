"""What hooks and steps know of the training that they take part in, and the batch that they are given.

Shapes: images are float `[B, C, H, W]` in 0..1, labels int64 `[B]`; with several ranks B counts this rank's rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from robust_nas.distributed import ALONE, Ranks
from robust_nas.errors import ConfigError
from robust_nas.lazy import torch
from robust_nas.training.loss import Loss, LossValue, cross_entropy, smoothed_labels

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn
    from torch.optim import Optimizer

    from robust_nas.data import Images
    from robust_nas.nets import CellNetwork


class Batch(NamedTuple):
    """This rank's rows of one batch, augmented."""

    images: Tensor  # [B, C, H, W]
    labels: Tensor  # [B]
    indices: Tensor  # [B], of the images in the training split, on the host; -1 for one of another place
    share: float = 1.0  # of the whole batch, 0..1: means over the rows are weighted by it


class ChangesLoss(Protocol):
    """What of a hook changes the loss of a step (`hook.py`)."""

    @property
    def label_smoothing(self) -> float:
        """Return the share of every label in a cross-entropy that goes to all classes alike."""

    def loss(self, loss: Loss) -> Loss:
        """Return the loss of the next step."""


@dataclass(frozen=True, kw_only=True)
class TrainingContext:
    """A training as its hooks and its step see it."""

    network: nn.Module
    loss: Loss  # of the recipe; that of a step is `present_loss`
    generator: Generator  # of every draw of the training
    epochs: int = 1
    steps: int = 1  # of an epoch
    batch_size: int = 1  # of the whole batch
    bf16: bool = False
    auxiliary_weight: float = 0.0
    ranks: Ranks = ALONE
    images: Images | None = None  # that are trained on
    validation: Images | None = None
    optimiser: Optimizer | None = None
    average: nn.Module | None = None  # moving average of the weights, where the recipe has one
    hooks: list[ChangesLoss] = field(default_factory=list)  # all of them, once they are started

    @property
    def present_loss(self) -> Loss:
        """Return the loss of the next step: the recipe's, as the hooks change it, one after the other."""
        return reduce(lambda loss, hook: hook.loss(loss), self.hooks, self.loss)

    def of(self, network: nn.Module) -> TrainingContext:
        """Return the same training with a part of its network in the place of the network."""
        return replace(self, network=network)

    @contextlib.contextmanager
    def computing(self, images: Tensor) -> Iterator[Loss]:
        """Give the present loss; inside are the recipe's precision and smoothed labels."""
        loss = self.present_loss
        smoothing = max((hook.label_smoothing for hook in self.hooks), default=0.0)
        smoothed = smoothed_labels(smoothing, loss) if smoothing else contextlib.nullcontext()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16), smoothed:
            yield loss

    def value(self, images: Tensor, labels: Tensor) -> LossValue:
        """Return the present loss, with that of the auxiliary head, in the recipe's precision."""
        with self.computing(images) as loss:
            value = loss(self.network, images, labels, self.generator)
            if not isinstance(value, LossValue):
                raise ConfigError(
                    f"training.loss: {loss.label} returned {type(value).__name__}; "
                    "a robust_nas.training.LossValue of a scalar and the logits is needed"
                )
            if not self.auxiliary_weight:
                return value
            logits = cast("CellNetwork", self.network).auxiliary_logits(images)
            return LossValue(value.loss + self.auxiliary_weight * cross_entropy(logits, labels), value.logits)
