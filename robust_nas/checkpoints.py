"""Checkpoint files: read without executing anything in them, and put back where their shapes fit."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from robust_nas.errors import CheckpointError

if TYPE_CHECKING:
    import torch


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file, read without executing anything. Raises `CheckpointError`."""
    state = load_plain(path, path)
    if not isinstance(state, dict) or not isinstance(state.get("metrics_bytes"), int):
        raise CheckpointError(f"{path}: is not a checkpoint of a run")
    return state


def load_plain(source: Path | IO[bytes], path: Path) -> Any:
    """Return what `torch.save` wrote to `source`, a part of the file `path`. Raises `CheckpointError`.

    Nothing in it is executed: tensors, numbers, strings, lists and dicts alone are read.
    """
    import torch

    try:
        with warnings.catch_warnings(
            action="ignore"
        ):  # torch's doubts about a foreign pickle, which it then refuses
            return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused, it is no plain checkpoint: {_first_line(error)}") from None
    except Exception as error:  # damaged bytes make the unpickler raise whatever they happen to mean
        raise CheckpointError(f"{path}: damaged or truncated: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def restore_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Loads an optimiser's state and checks its shapes, which torch does not. Raises `ValueError`."""
    optimiser.load_state_dict(state)
    for parameter, buffers in optimiser.state.items():
        for name, value in buffers.items():
            shape = getattr(value, "shape", ())
            if shape and shape != parameter.shape:
                raise ValueError(
                    f"the optimiser's {name} has shape {list(shape)}, its parameter {list(parameter.shape)}"
                )
