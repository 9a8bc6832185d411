"""The protocol of training steps: how one batch becomes gradients of the network's parameters.

A new step is a subclass of `StepOptions` with its options, and of `TrainingStep` with its algorithm, both in a file of
its own in `steps/`, and a line in `STEPS`. The loop sums the gradients over the ranks, clips them, moves the weights.
Methods that need more than one scalar replace the step: replayed batches, particles, generators with optimisers of
their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from robust_nas.registry import Method
from robust_nas.training.context import Batch, TrainingContext
from robust_nas.training.hook import TrainingHook
from robust_nas.training.loss import Loss

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.spaces import Architecture


class Measured(NamedTuple):
    """What a step measured, on the device: sums over the ranks are those of the whole batch."""

    loss: Tensor  # scalar, this rank's share of the mean loss
    correct: Tensor  # number of this rank's images that were classified correctly


class TrainingStep:
    """Base of all steps in their running form."""

    replays: int = (
        1  # how often a batch is used: each time, gradients are made and the optimiser moves the weights
    )

    def __init__(self, training: TrainingContext, hooks: Sequence[TrainingHook] = ()) -> None:
        self.training, self.hooks = training, hooks

    def attacked(self, batch: Batch) -> Batch:
        """Return the batch as the loss of the next gradients sees it: hooks are given it before the step."""
        return batch

    def gradients(self, batch: Batch) -> Measured:
        """Leave the gradients of this rank's share of the loss in the network's parameters, by `backward`.

        The network is in training mode and has no gradients; nothing is read back from the device.
        """
        raise NotImplementedError(f"{type(self).__name__} has no algorithm")

    def backward(self, loss: Tensor, batch: Batch) -> Tensor:
        """Backpropagate this rank's share of a loss and of the hooks' penalties. Return its share of the loss."""
        loss = batch.share * loss
        whole = loss
        for hook in self.hooks:
            penalty = hook.penalty()
            whole = whole if penalty is None else whole + batch.share * penalty
        whole.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def penalise(self, batch: Batch) -> None:
        """Add the gradients of this rank's share of the hooks' penalties to those that are there."""
        for hook in self.hooks:
            penalty = hook.penalty()
            if penalty is not None:
                (batch.share * penalty).backward()  # type: ignore[no-untyped-call]

    def clipped_together(self) -> list[nn.Module]:
        """Return the networks whose gradients are clipped each by its own norm: the whole one by default."""
        return [self.training.network]

    def state(self) -> dict[str, Any]:
        """Return what the next step depends on, the same on every rank: tensors, numbers, strings, lists, dicts."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave; its tensors are on the host.

        Raises `LookupError`, `ValueError` or `RuntimeError` where it does not fit.
        """


class StepOptions(Method):
    """Base of all steps as a config names them. `needs_end`: whether it uses the number of epochs."""

    needs_end: ClassVar[bool] = True
    moves_images: ClassVar[bool] = False  # whether it changes the images of a batch, within 0..1
    usual_loss: ClassVar[str] = "natural"  # of a comparison that names the step alone

    def start(self, training: TrainingContext, hooks: Sequence[TrainingHook]) -> TrainingStep:
        """Return the step at the begin of a training; `hooks` have penalties that it adds."""
        raise NotImplementedError(f"{type(self).__name__} has no algorithm")

    @property
    def batch_uses(self) -> int:
        """Return how often the optimiser moves the weights by one batch: `replays` of the running form."""
        return 1

    def refuse(self, loss: Loss) -> None:
        """Raise `ValueError` for a loss that the step cannot work with."""

    def refuse_architecture(self, architecture: Architecture | type[Architecture]) -> None:
        """Raise `ConfigError` for a network that the step cannot be for; of a search only the family is known."""

    def passes(self, loss: Loss) -> float:
        """Return the forward-pass equivalents of one batch, per image."""
        return loss.passes
