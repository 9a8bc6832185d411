"""The protocol of training losses: how one is called, and what others may ask of it.

A new loss is a subclass with its options, `passes` and `__call__`, in a file of its own in `losses/`, and a line in
`LOSSES`. Shapes: images are float `[B, C, H, W]` in 0..1, labels int64 `[B]`, logits `[B, K]`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from robust_nas.attacks import Attack
from robust_nas.errors import ConfigError
from robust_nas.lazy import F, torch
from robust_nas.registry import Method

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

STEP_PASSES = (
    3  # of a training step on one image: a forward pass, and both gradients at about one forward pass each
)


class LossValue(NamedTuple):
    """A training loss (scalar), and the logits `[B, K]` that the training accuracy is counted on."""

    loss: Tensor
    logits: Tensor


class Loss(Method):
    """Base of all training losses."""

    twice_differentiated: ClassVar[bool] = (
        False  # whether it holds gradients of the network, which training differentiates again
    )
    single_rank: ClassVar[str] = ""  # why a training of several ranks cannot have it; empty: it can
    fits_parts: ClassVar[bool] = (
        False  # whether it fits parts of its own to the training images, or counts them (`start`), as a training does
    )
    plain: ClassVar[bool] = False  # whether it is the cross-entropy on the images of a step, and nothing else
    warning: ClassVar[str] = ""  # what a user should know before the training; printed and recorded
    uncounted: ClassVar[str] = ""  # what takes time and is in no number of passes; plans say it

    @property
    def mixes_inside(self) -> bool:
        """Return whether the network needs `mixing_points`: what it takes to mix the outputs of layers."""
        return False

    @property
    def least_side(self) -> int:
        """Return the rows and columns of an image below which the loss is not defined."""
        return 1

    @property
    def least_classes(self) -> int:
        """Return the number of classes below which the loss is not defined."""
        return 2

    @property
    def inner_attack(self) -> Attack | None:
        """Return the attack that makes the images of a step, the option `attack`; None where there is none."""
        return getattr(self, "attack", None)

    @property
    def passes(self) -> float:
        """Return the forward-pass equivalents of one training step, per image."""
        raise NotImplementedError(f"{type(self).__name__} does not say how many passes it takes")

    def explanation(self, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """Return what figures show of a model on a few images, before and after the training, in plain values.

        Its keys are those that a figure of the room `figures` needs of a training's record; none by default.
        """
        return {}

    def start(self, training: Any) -> Any:
        """Return the `TrainingHook` that fits what the loss needs between steps, or None; it comes before all others.

        `training` is the `TrainingContext`; the hook's `loss` gives the loss of a step. A training by it resumes by the
        hook's `state`.
        """
        return None

    def more_passes(self, epochs: int, uses: int) -> float:
        """Return the forward-pass equivalents an epoch, per image, that a training has next to `passes`, as a mean.

        `uses` is how often a step uses a batch.
        """
        return 0

    def refuse_architecture(self, architecture: Any, key: str = "training.loss") -> None:
        """Raise `ConfigError` for an architecture, or a family of them, whose network lacks what the loss needs."""

    def refuse_images(self, labels: Tensor, classes: int) -> None:
        """Raise `DataError` for training images, by their labels `[N]`, that the loss is not defined on."""

    def refuse_network(self, network: nn.Module, key: str = "training.loss") -> None:
        """Raise `ConfigError` for a network that lacks what the loss needs of it."""
        if self.mixes_inside and not hasattr(network, "mixing_points"):
            raise ConfigError(
                f"{key}: {self.label} mixes the outputs of layers; {type(network).__name__} has no `mixing_points`: "
                "its images alone can be mixed; allowed for it: layers 0"
            )

    def refuse_ranks(self, count: int, key: str = "training.loss") -> None:
        """Raise `ConfigError` where a job of so many ranks cannot use the loss."""
        if count > 1 and self.single_rank:
            raise ConfigError(
                f"{key}: got {self.label!r} for {count} ranks; {self.single_rank}; start it without torchrun"
            )

    def with_attack(self, attack: Attack) -> Self:
        """Return the loss with another inner attack, which is the field `attack`. Raises `ConfigError` without one."""
        if "attack" not in type(self).model_fields:
            raise ConfigError(f"training.loss: {self.label} has no field `attack` that a hook could change")
        return self.model_copy(update={"attack": attack})

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> LossValue:
        """Return the loss on images `[B, C, H, W]` in 0..1 with labels `[B]`; the model is in training mode.

        Every draw comes from `generator`. Images and labels are sound: nothing is read back from the device.
        """
        raise NotImplementedError(f"{type(self).__name__} has no algorithm")


def attack_passes(attack: Attack) -> int:
    """Return the forward-pass equivalents of an attack in training, per image (`Attack.crafting_passes`)."""
    return attack.eot * attack.crafting_passes


def to_float32(logits: Tensor) -> Tensor:
    """Return logits in float32 or higher; losses are never computed in bf16."""
    return logits if logits.dtype == torch.float64 else logits.float()


class _Smoothing:
    """The share of every label that goes to all classes alike, and whether a cross-entropy has asked for it."""

    def __init__(self, share: float) -> None:
        self.share, self.used = share, False


_SMOOTHING: ContextVar[_Smoothing | None] = ContextVar("robust_nas_label_smoothing", default=None)


@contextlib.contextmanager
def smoothed_labels(share: float, loss: Loss) -> Iterator[None]:
    """Smooth the labels of every `cross_entropy` inside: the target is (1 - share) one-hot + share / K.

    Raises `ConfigError` on leaving where `loss` took none: its labels would stay as they are without a word.
    """
    smoothing = _Smoothing(share)
    token = _SMOOTHING.set(smoothing)
    try:
        yield
    finally:
        _SMOOTHING.reset(token)
    if not smoothing.used:
        raise ConfigError(
            f"training.hooks: label smoothing needs a loss made of robust_nas.training.cross_entropy; "
            f"{loss.label!r} is not"
        )


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits `[B, K]`, in float32 or higher, smoothed where a hook says so."""
    smoothing = _SMOOTHING.get()
    if smoothing is None:
        return F.cross_entropy(to_float32(logits), labels)
    smoothing.used = True
    return F.cross_entropy(to_float32(logits), labels, label_smoothing=smoothing.share)
