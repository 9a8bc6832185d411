"""The optimisers of a one-shot search: SGD for the weights, Adam for the architecture parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from robust_nas.config import Fraction01, NonNegative, Options, Positive
from robust_nas.lazy import torch
from robust_nas.training.loss import Loss
from robust_nas.training.losses import LOSSES

if TYPE_CHECKING:
    from torch import nn


class WeightOptimiser(Options):
    """SGD with momentum for the supernet's weights, cosine from `learning_rate` to `min_learning_rate`.

    `loss` is any training loss, on the images as they are; None: the cross-entropy on the search's attacked images.
    """

    learning_rate: Positive = 0.025
    min_learning_rate: NonNegative = 0.001
    momentum: Fraction01 = 0.9
    weight_decay: NonNegative = 3e-4
    clip_norm: Positive = 5.0
    loss: Annotated[Loss, LOSSES.field()] | None = None

    @model_serializer(mode="wrap")
    def _leave_no_loss_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write the loss only where there is one: older folders, which lack it, stay equal."""
        tree: dict[str, Any] = handler(self)
        if self.loss is None:
            tree.pop("loss", None)
        return tree

    def build(self, weights: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of these weights."""
        return torch.optim.SGD(
            weights, self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )


class AlphaOptimiser(Options):
    """Adam for the architecture parameters."""

    learning_rate: Positive = 3e-4
    betas: tuple[Fraction01, Fraction01] = (0.5, 0.999)
    weight_decay: NonNegative = 1e-3

    def build(self, alphas: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of these parameters."""
        return torch.optim.Adam(alphas, self.learning_rate, betas=self.betas, weight_decay=self.weight_decay)
