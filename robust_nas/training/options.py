"""Recipes as option values: the loss with its inner attack, the optimiser, the schedule, and what is validated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from robust_nas.attacks import PGD, Attack, attack_field, training_attack_field
from robust_nas.config import Count, CountOrZero, Fraction01, NonNegative, Options, Positive

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class LossValue(NamedTuple):
    """A training loss (scalar), and the logits `[B, K]` it was judged on (adversarial ones where there are any)."""

    loss: Tensor
    logits: Tensor


class Natural(Options):
    """Cross-entropy on clean images."""

    name: Literal["natural"] = "natural"

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> LossValue:
        """The loss on images `[B, C, H, W]` in 0..1 with labels `[B]`; the model is in training mode."""
        from robust_nas.training.losses import natural

        return natural.loss(self, model, images, labels, generator)


class PGDAT(Options):
    """Cross-entropy on adversarial images alone (PGDAT et al., 2018)."""

    name: Literal["pgd"] = "pgd"
    attack: Annotated[Attack, training_attack_field()]

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> LossValue:
        """The loss on images `[B, C, H, W]` in 0..1 with labels `[B]`; the model is in training mode."""
        from robust_nas.training.losses import pgd

        return pgd.loss(self, model, images, labels, generator)


class Trades(Options):
    """Clean cross-entropy plus beta times KL to the adversarial prediction (Zhang et al., 2019)."""

    name: Literal["trades"] = "trades"
    attack: Annotated[Attack, training_attack_field()]
    beta: NonNegative = 6.0

    @model_validator(mode="after")
    def _attack_maximises_kl(self) -> Self:
        if self.attack.objective != "kl":
            raise ValueError(f"attack.loss is {self.attack.objective!r}; TRADES needs 'kl'")
        return self

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> LossValue:
        """The loss on images `[B, C, H, W]` in 0..1 with labels `[B]`; the model is in training mode."""
        from robust_nas.training.losses import trades

        return trades.loss(self, model, images, labels, generator)


Loss = Annotated[Natural | PGDAT | Trades, Field(discriminator="name")]


class Cosine(Options):
    """Linear warm-up, then half a cosine to `final` times the learning rate."""

    name: Literal["cosine"] = "cosine"
    warmup_epochs: NonNegative = 0.0
    final: NonNegative = 0.0


class Piecewise(Options):
    """The learning rate times `factor` from each of the milestone epochs on."""

    name: Literal["piecewise"] = "piecewise"
    milestones: tuple[Count, ...] = (100, 150)
    factor: Positive = 0.1


Schedule = Annotated[Cosine | Piecewise, Field(discriminator="name")]


class Training(Options):
    """The recipe of a final network."""

    epochs: Count = 100
    batch_size: Annotated[Count, Field(ge=2)] = 128
    loss: Loss
    learning_rate: Positive = 0.1
    momentum: Fraction01 = 0.9
    nesterov: bool = False
    weight_decay: NonNegative = 5e-4
    clip_norm: Positive | None = None
    schedule: Schedule = Cosine()
    ema: Fraction01 | None = None  # decay per step of the averaged weights, which are then the model
    drop_path: Fraction01 = 0.0  # at the last epoch, rising linearly from 0
    auxiliary_weight: NonNegative = 0.0  # of the auxiliary head's loss, on clean images as ARNAS has it
    validation_attack: Annotated[PGD, attack_field()]  # decides which epoch is kept
    validation_images: Count | None = None  # at most so many of the validation split
    validate_every: Count = 1  # epochs; the last one is always validated
    validate_from: CountOrZero = 0  # first epoch that is validated
    precision: Literal["float32", "bf16"] = "float32"

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0; momentum is 0")
        return self
