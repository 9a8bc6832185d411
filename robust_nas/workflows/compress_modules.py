"""What a compression refuses of a user's own module, before anything is written or trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robust_nas.errors import CheckpointError, CompressionError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import nn


def refuse_foreign(
    network: nn.Module, shape: tuple[int, int, int], source: str, weights: Path | None
) -> None:
    """Raise `CompressionError` for a module of `source` that cannot be compressed, `CheckpointError` for its weights.

    The module has to make float32 logits of images of `shape` (C, H, W), in any number, of weights that are finite and
    have one name each. It is put into eval mode.
    """
    _refuse_misfit(network, shape, source)
    _refuse_broken(network, str(weights or source))
    _refuse_shared(network, source)


def _refuse_broken(network: nn.Module, source: str) -> None:
    """Raise `CheckpointError` for weights that are not finite."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{source}: {name} holds NaN or infinite values")


def _refuse_misfit(network: nn.Module, shape: tuple[int, int, int], source: str) -> None:
    """Raise `CompressionError` for a module that does not make logits of an image."""
    network.eval()
    for count in (2, 1):  # attacks and clocks take any number; a state may keep the first one
        try:
            with torch.no_grad():
                logits = network(torch.zeros(count, *shape))
        except Exception as error:  # whatever a foreign module raises
            raise CompressionError(
                f"{source}: does not take float32 images of {shape} in a batch of {count}: "
                f"{type(error).__name__}: {error}"
            ) from error
        _refuse_other_outputs(logits, count, source)


def _refuse_other_outputs(logits: object, count: int, source: str) -> None:
    """Raise `CompressionError` for what is not float32 logits of `count` images."""
    if (
        not isinstance(logits, torch.Tensor)
        or logits.ndim != 2
        or len(logits) != count
        or logits.dtype != torch.float32
    ):
        what = (
            f"{logits.dtype} {tuple(logits.shape)}"
            if isinstance(logits, torch.Tensor)
            else type(logits).__name__
        )
        raise CompressionError(f"{source}: gives {what}; float32 logits [{count}, classes] are needed")


def _refuse_shared(network: nn.Module, source: str) -> None:
    """Raise `CompressionError` for a tensor with two names, which a file of weights cannot hold."""
    seen: dict[int, str] = {}
    for name, tensor in network.state_dict().items():
        if tensor.numel() and seen.setdefault(tensor.data_ptr(), name) != name:
            raise CompressionError(
                f"{source}: {name} and {seen[tensor.data_ptr()]} are one tensor; a module in which every layer has its "
                "own is needed (compress_gdws in Python takes this one)"
            )
