"""The recipe of a training: the loss with its inner attack, step and hooks, the optimiser, and what is validated."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from robust_nas.attacks import BoundedAttack, attack_field, inherited
from robust_nas.config import Count, CountOrZero, Fraction01, NonNegative, Options, Positive
from robust_nas.training.hook import HookOptions
from robust_nas.training.hooks import HOOKS
from robust_nas.training.loss import Loss
from robust_nas.training.losses import LOSSES
from robust_nas.training.schedule import Schedule
from robust_nas.training.schedules import SCHEDULES
from robust_nas.training.schedules.warmup_cosine import Cosine
from robust_nas.training.step import StepOptions
from robust_nas.training.steps import STEPS
from robust_nas.training.steps.standard import Standard

ValidationAttack = Annotated[
    BoundedAttack,
    attack_field(
        lambda attack: issubclass(attack, BoundedAttack) and attack.bounded and attack.access == "gradient",
        "a bounded gradient attack is needed",
        default="pgd",
    ),
]


class Training(Options):
    """The recipe of a final network."""

    epochs: Count = 100  # passes over the training images
    batch_size: Annotated[Count, Field(ge=2)] = 128  # images of a step
    loss: Annotated[Loss, LOSSES.field()]  # of every step, with its attack
    step: Annotated[StepOptions, STEPS.field(presets=inherited)] = Standard()  # how a batch becomes gradients
    hooks: tuple[Annotated[HookOptions, HOOKS.field()], ...] = ()  # in the order in which they are called
    learning_rate: Positive = 0.1  # of SGD, at its peak
    momentum: Fraction01 = 0.9  # of SGD
    nesterov: bool = False  # whether the momentum is Nesterov's
    weight_decay: NonNegative = 5e-4  # L2 penalty of the weights
    clip_norm: Positive | None = None  # largest norm of a gradient; None: any
    schedule: Annotated[Schedule, SCHEDULES.field()] = Cosine()  # of the learning rate
    # decay of averaged weights per step, which are then the model; None: no average
    ema: Fraction01 | None = None
    drop_path: Fraction01 = 0.0  # probability of a dropped path at the last epoch, rising linearly from 0
    # weight of the auxiliary head's loss, on clean images as ARNAS has it
    auxiliary_weight: NonNegative = 0.0
    validation_attack: ValidationAttack  # attack that decides which epoch is kept
    # epoch that is kept: of the best robust or clean accuracy, or the last
    keep: Literal["robust", "clean", "last"] = Field(default="robust", exclude_if=lambda by: by == "robust")
    validation_images: Count | None = None  # validation images at most; None: all
    validate_every: Count = 1  # epochs between validations; the last one is always validated
    validate_from: CountOrZero = 0  # first epoch that is validated, counted from 0
    precision: Literal["float32", "bf16"] = "float32"  # numbers in which passes are computed

    @property
    def batch_uses(self) -> int:
        """Return how often the optimiser moves the weights by one batch."""
        return self.step.batch_uses

    @property
    def moves_images(self) -> bool:
        """Return whether the step changes the images of a batch."""
        return self.step.moves_images

    @property
    def passes(self) -> float:
        """Return the forward-pass equivalents of one training image in an epoch, as a mean of all epochs.

        Those of the step, of the loss between steps and of the hooks; validation is not among them.
        """
        more = self.loss.more_passes(self.epochs, self.batch_uses)
        return self.step.passes(self.loss) + more + sum(hook.passes(self) for hook in self.hooks)

    @property
    def validated_epochs(self) -> list[int]:
        """Return the epochs that are validated, from 0; the last one always is."""
        last = self.epochs - 1
        return [*(epoch for epoch in range(last) if self.is_validated(epoch)), last]

    @property
    def bound_to_epochs(self) -> list[str]:
        """Return the keys that depend on the number of epochs: with any, a training cannot be given more."""
        hooks = {f"hooks.{number}": hook for number, hook in enumerate(self.hooks)}
        parts: dict[str, Schedule | StepOptions | HookOptions] = {
            "schedule": self.schedule,
            "step": self.step,
            **hooks,
        }
        found = [f"training.{key} ({part.label})" for key, part in parts.items() if part.needs_end]
        found += ["training.drop_path"] if self.drop_path else []
        # The last epoch is validated, and may be kept, although with more epochs it is not.
        return [*found, *([] if self.is_validated(self.epochs - 1) else ["training.validate_every"])]

    def is_validated(self, epoch: int) -> bool:
        """Return whether an epoch, from 0, is validated where it is not the last one."""
        return epoch >= self.validate_from and (epoch - self.validate_from) % self.validate_every == 0

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0; momentum is 0")
        return self

    @model_validator(mode="after")
    def _second_derivatives_are_exact(self) -> Self:
        if self.loss.twice_differentiated and self.precision == "bf16":
            raise ValueError(
                f"precision is 'bf16', but loss {self.loss.label!r} is differentiated twice; allowed for it: float32"
            )
        return self

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        self.step.refuse(self.loss)
        for hook in self.hooks:
            hook.refuse(self)
        return self

    @model_serializer(mode="wrap")
    def _leave_defaults_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write step and hooks only where they are not the default: older folders, which lack them, stay equal."""
        tree: dict[str, Any] = handler(self)
        for key in ("step", "hooks"):
            if getattr(self, key) == type(self).model_fields[key].default:
                tree.pop(key, None)
        return tree
