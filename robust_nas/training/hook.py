"""The protocol of training hooks: what is called around every step and epoch, whatever the loss.

A new hook is a subclass of `HookOptions` with its options, and of `TrainingHook` with its algorithm, both in a file of
its own in `hooks/`, and a line in `HOOKS`. A config lists the hooks of a training under `training.hooks`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from robust_nas.registry import Method
from robust_nas.training.context import Batch, TrainingContext
from robust_nas.training.loss import Loss

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.data import Images
    from robust_nas.spaces import Architecture


class Recipe(Protocol):
    """What of a recipe (`recipe.py`) decides whether a hook can be part of it."""

    @property
    def loss(self) -> Loss:
        """Return the loss."""

    @property
    def epochs(self) -> int:
        """Return the number of epochs."""

    @property
    def ema(self) -> float | None:
        """Return the decay of the averaged weights; None without."""

    @property
    def hooks(self) -> Sequence[HookOptions]:
        """Return the hooks, in the order in which they are called."""

    @property
    def batch_uses(self) -> int:
        """Return how many steps are taken by one batch."""

    @property
    def moves_images(self) -> bool:
        """Return whether the step changes the images of a batch."""

    @property
    def validated_epochs(self) -> list[int]:
        """Return the epochs that are validated, from 0."""


class TrainingHook:
    """Base of all hooks in their running form; every method does nothing by default."""

    label_smoothing: float = 0.0  # share of every label in a cross-entropy that goes to all classes alike
    stop: bool = False  # whether the training ends with this epoch; asked after `validated`

    def mixed(self, images: Images, indices: Tensor) -> tuple[Images, Tensor]:
        """Return the images of a whole batch before they are augmented, and their indices, -1 for those of others."""
        return images, indices

    def augmented(self, images: Tensor) -> Tensor:
        """Return the images `[B, C, H, W]` of a whole batch as a step gets them, after augmentation; called once."""
        return images

    def loss(self, loss: Loss) -> Loss:
        """Return the loss of the next step: the one given, or a copy of it with other options."""
        return loss

    def before_step(self, batch: Batch) -> None:
        """Prepare for a step on this batch; the weights may be moved, until `after_backward`."""

    def penalty(self) -> Tensor | None:
        """Return a scalar that is added to the loss of a step; None for nothing."""
        return None

    def after_backward(self) -> None:
        """Finish the step before the optimiser moves the weights; the gradients are there. The last hook is first."""

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Finish an epoch before it is validated. Return what its record in the log holds of the hook."""
        return {}

    def validated(self, epoch: int, clean: float, robust: float) -> None:
        """Take note of an epoch's accuracies on validation, 0..1; not called for epochs that are not validated."""

    def applied(self) -> AbstractContextManager[None]:
        """Return a context in which the network has the weights that are validated and kept."""
        return contextlib.nullcontext()

    def state(self) -> dict[str, Any]:
        """Return what the next step depends on, the same on every rank: tensors, numbers, strings, lists, dicts."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave; its tensors are on the host.

        Raises `LookupError`, `ValueError` or `RuntimeError` where it does not fit.
        """


class HookOptions(Method):
    """Base of all hooks as a config names them. `needs_end`: whether it uses the number of epochs."""

    needs_end: ClassVar[bool] = True
    reads_weights: ClassVar[bool] = False  # whether `end_epoch` takes the weights as those of the epoch

    def refuse(self, recipe: Recipe) -> None:
        """Raise `ValueError` for a recipe that the hook cannot be part of."""

    def refuse_data(self, shape: tuple[int, int, int], classes: int) -> None:
        """Raise `DataError` where the hook does not fit images of `shape` (C, H, W) and that many classes."""

    def refuse_architecture(self, architecture: Architecture | type[Architecture]) -> None:
        """Raise `ConfigError` for a network that the hook cannot be for; of a search only the family is known."""

    def prepare(self, network: nn.Module) -> None:
        """Change the network before the optimiser, averages and other hooks see it; also before it is resumed."""

    def start(self, training: TrainingContext) -> TrainingHook:
        """Return the hook at the begin of a training."""
        raise NotImplementedError(f"{type(self).__name__} has no algorithm")

    def passes(self, recipe: Recipe) -> float:
        """Return the forward-pass equivalents that the hook adds to an epoch, per image, as a mean of all epochs."""
        return 0
