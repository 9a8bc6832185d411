"""The optimisers of a one-shot search: SGD for the weights, Adam for the architecture parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from robust_nas.config import Fraction01, NonNegative, Options, Positive
from robust_nas.lazy import torch
from robust_nas.training.loss import Loss
from robust_nas.training.losses import loss_of_steps
from robust_nas.training.schedule import cosine

if TYPE_CHECKING:
    from torch import nn


class WeightOptimiser(Options):
    """SGD with momentum for the supernet's weights, cosine from `learning_rate` to `min_learning_rate`.

    `loss` is any training loss, on the images as they are; None: the cross-entropy on the search's attacked images.
    """

    learning_rate: Positive = 0.025  # at the first epoch
    min_learning_rate: NonNegative = 0.001  # at the end of the cosine
    momentum: Fraction01 = 0.9  # of SGD
    weight_decay: NonNegative = 3e-4  # L2 penalty of the weights
    clip_norm: Positive = 5.0  # largest norm of a gradient
    # of the weights; None: cross-entropy on attacked images
    loss: Annotated[Loss, loss_of_steps()] | None = None

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


class AlphaSchedule(Options):
    """The learning rate of the architecture parameters by epoch; `cosine` ends at `min_learning_rate`."""

    learning_rate: Positive = 3e-4  # of Adam, at the first epoch
    # of the learning rate
    schedule: Literal["constant", "cosine"] = Field(default="constant", exclude_if=lambda s: s == "constant")
    # at the end of the cosine
    min_learning_rate: NonNegative = Field(default=0.0, exclude_if=lambda rate: rate == 0)

    @model_validator(mode="after")
    def _the_lowest_rate_is_used_and_lower(self) -> Self:
        lowest = self.min_learning_rate
        if self.schedule == "constant" and lowest:
            raise ValueError(
                f"min_learning_rate is {lowest}, but schedule is 'constant'; allowed with it: 0, or schedule: cosine"
            )
        if lowest > self.learning_rate:
            raise ValueError(
                f"min_learning_rate is {lowest}; allowed: at most the learning_rate, {self.learning_rate}"
            )
        return self

    def rate(self, epoch: int, epochs: int) -> float:
        """Return the learning rate of an epoch, from 0, of those in which the alphas move."""
        if self.schedule == "constant":
            return self.learning_rate
        return cosine(epoch, epochs, self.learning_rate, self.min_learning_rate)


class AlphaOptimiser(AlphaSchedule):
    """Adam for the architecture parameters."""

    betas: tuple[Fraction01, Fraction01] = (0.5, 0.999)  # decay rates of Adam's moments
    weight_decay: NonNegative = 1e-3  # L2 penalty of the alphas

    def build(self, alphas: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of these parameters."""
        return torch.optim.Adam(alphas, self.learning_rate, betas=self.betas, weight_decay=self.weight_decay)
