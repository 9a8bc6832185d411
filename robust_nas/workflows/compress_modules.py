"""What a compression refuses of a user's own module, before anything is written or trained."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from robust_nas.errors import CheckpointError, CompressionError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import nn

    from robust_nas.data import Images


def refuse_foreign(
    network: nn.Module, images: Images, classes: int, source: str, weights: Path | None, *, trains: bool
) -> None:
    """Raise `CompressionError` for a module of `source` that cannot be compressed, `CheckpointError` for its weights.

    The module has to make finite float32 logits, `classes` or more, of the first `images`, in any number, with a
    gradient for the images and, where a step `trains`, for weights in training mode. Its own weights are finite and
    have one name each. It is put into eval mode; the state of torch's own generator is put back.
    """
    with torch.random.fork_rng(devices=[]):
        _refuse_broken(network, str(weights or source))
        _refuse_misfit(network, images, classes, source)
        _refuse_shared(network, source)
        _refuse_no_gradient(network, images, source)
        if trains:
            _refuse_no_gradient(copy.deepcopy(network).train(), images, source)


def _refuse_broken(network: nn.Module, source: str) -> None:
    """Raise `CheckpointError` for weights that are not finite."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{source}: {name} holds NaN or infinite values")


def _refuse_misfit(network: nn.Module, images: Images, classes: int, source: str) -> None:
    """Raise `CompressionError` for a module that does not make logits of an image."""
    network.eval()
    for count in (2, 1):  # attacks and clocks take any number; a state may keep the first one
        x = images.float(torch.arange(count))
        try:
            with torch.no_grad():
                logits = network(x)
        except Exception as error:  # whatever a foreign module raises
            raise CompressionError(
                f"{source}: does not take float32 images of {tuple(x.shape[1:])} in a batch of {count}: "
                f"{type(error).__name__}: {error}"
            ) from error
        _refuse_other_outputs(logits, count, source)
        if logits.shape[1] < classes:
            raise CompressionError(
                f"{source}: gives {logits.shape[1]} logits; the dataset has {classes} classes"
            )
        if not logits.isfinite().all():
            raise CompressionError(
                f"{source}: gives logits that are NaN or infinite for images of the dataset"
            )


def _refuse_no_gradient(network: nn.Module, images: Images, source: str) -> None:
    """Raise `CompressionError` where no gradient reaches images (in eval mode) or weights (in training mode)."""
    few = images.subset(torch.arange(min(4, len(images))))
    x = few.float().requires_grad_(not network.training)
    of, mode = ("weights", "training") if network.training else ("images", "eval")
    wanted = [weight for weight in network.parameters() if weight.requires_grad] if network.training else [x]
    try:
        with torch.enable_grad():
            loss = torch.nn.functional.cross_entropy(network(x), few.labels)
            found = torch.autograd.grad(loss, wanted, allow_unused=True) if wanted else ()
    except Exception as error:  # whatever a foreign module raises
        raise CompressionError(
            f"{source}: its loss has no gradient for the {of} in {mode} mode: {type(error).__name__}: {error}; "
            "attacks and training need one: no no_grad, inference_mode or detach around its layers"
        ) from error
    gradients = [gradient for gradient in found if gradient is not None]
    if not gradients or not all(gradient.isfinite().all() for gradient in gradients):
        what = "not finite" if gradients else "missing"
        raise CompressionError(f"{source}: the gradient of its loss for the {of} is {what} in {mode} mode")


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
