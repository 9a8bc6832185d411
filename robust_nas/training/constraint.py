"""What a training may be bound by beside its loss: a penalty at every step, and the form its weights are judged in."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor


class Constraint(Protocol):
    """Knows the network that is trained; the training asks it, and keeps its state in the checkpoint."""

    def penalty(self) -> Tensor:
        """A scalar that is added to the loss of a step."""

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Told that an epoch is over, before it is validated; returns what is logged of it."""

    def applied(self) -> AbstractContextManager[None]:
        """Inside, the network has the weights that are validated and kept."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: tensors, numbers, strings, lists and dicts."""

    def restore(self, state: dict[str, Any]) -> None:
        """Puts back what `state` gave. Raises `LookupError`, `ValueError` or `RuntimeError` where it does not fit."""
