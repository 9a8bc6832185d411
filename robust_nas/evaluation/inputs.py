"""Bring what a user hands to `evaluate` into one form, and refuse the rest before anything is attacked.

images   an object with `pixels` and `labels`, a pair (x, y), or a torch Dataset whose items are (image, label)
model    a torch module whose tensors have values, or any function of images, wrapped into one
device   the one that the model's tensors are on, or a given one that holds some of them
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from robust_nas.attacks.predictor import FunctionModule
from robust_nas.errors import AttackError, ConfigError, RobustNASError
from robust_nas.evaluation.accuracy import LabelledImages
from robust_nas.nets.devices import usable_device
from robust_nas.nets.values import without_values

ACCEPTED = (
    "an object with tensors `pixels` [N, C, H, W] and `labels` [N], a pair of such tensors, "
    "or a torch.utils.data.Dataset of (image tensor, label) is needed"
)


class Pair(NamedTuple):
    """Images `[N, C, H, W]` and labels `[N]`."""

    pixels: Tensor
    labels: Tensor


def labelled(data: Any) -> LabelledImages:
    """Return images with labels from any accepted form. Raise `AttackError` for another one, and what is accepted."""
    if hasattr(data, "pixels") and hasattr(data, "labels"):
        found = Pair(data.pixels, data.labels)
    elif isinstance(data, tuple | list) and len(data) == 2:
        found = Pair(*data)
    elif isinstance(data, Dataset) and hasattr(data, "__len__"):
        found = _stacked(data)
    elif hasattr(data, "train") and hasattr(data, "test"):
        raise AttackError(f"data: got {type(data).__name__}, training and test images; pass its `test`")
    else:
        count = f" of {len(data)}" if isinstance(data, tuple | list) else ""
        raise AttackError(f"data: got {type(data).__name__}{count}; {ACCEPTED}")
    for name, part in zip(Pair._fields, found, strict=True):
        if not isinstance(part, Tensor):
            raise AttackError(f"data: {name} are {type(part).__name__}, no tensor; {ACCEPTED}")
    return found


def _stacked(data: Dataset[Any]) -> Pair:
    """Return all items of a dataset as two tensors."""
    items: list[Any] = [data[index] for index in range(len(data))]  # type: ignore[arg-type] # a sized one
    for number, item in enumerate(items):
        if not (isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], Tensor)):
            parts = item if isinstance(item, tuple | list) else (item,)
            got = ", ".join(type(part).__name__ for part in parts)
            raise AttackError(f"data: item {number} of {type(data).__name__} is ({got}); {ACCEPTED}")
    if not items:
        raise AttackError(f"data: {type(data).__name__} is empty; no images to evaluate on")
    try:
        pixels = torch.stack([image for image, _ in items])
        labels = torch.stack([torch.as_tensor(label) for _, label in items])
    except (RuntimeError, TypeError, ValueError) as error:  # images of several sizes, labels that are words
        raise AttackError(f"data: items of {type(data).__name__} cannot be stacked: {error}") from None
    return Pair(pixels, labels)


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of a model."""
    return chain(model.named_parameters(), model.named_buffers())


def refuse_without_values(model: nn.Module) -> None:
    """Raise `AttackError` for a parameter or buffer without a shape or without values."""
    if reason := without_values(model):
        raise AttackError(reason)


def chosen_device(model: nn.Module, device: torch.device | str | None) -> torch.device:
    """Return where the images go: the given device, else the one of the model's first tensor, else the CPU.

    Raises `ConfigError` for a device that is not there, and for one that holds no tensor of the model.
    """
    own = list(dict.fromkeys(tensor.device for _, tensor in named_tensors(model)))
    if device is None:
        return own[0] if own else torch.device("cpu")
    found = usable_device(device)
    if found.type == "meta" or (own and found not in own):
        places = ", ".join(map(str, own)) or "none"
        raise ConfigError(
            f"device: got {str(device)!r}, but the model's tensors are on {places}; "
            "move the model first (model.to(device)), or leave the device out"
        )
    return found


def dtypes(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the floating-point types of the model's tensors, such as `float32`, each once."""
    found = (tensor.dtype for _, tensor in named_tensors(model) if tensor.is_floating_point())
    return tuple(dict.fromkeys(str(dtype).removeprefix("torch.") for dtype in found))


def notes(model: nn.Module, pixels: Tensor) -> tuple[str, ...]:
    """Return what a reader has to know of the inputs: a function instead of a module, other types than float32."""
    found = []
    if any(isinstance(module, FunctionModule) for module in model.modules()):
        found.append(
            "the model is a plain function: its parameters and its mode are not seen, so that no check covers them; "
            "pass a torch module in eval mode where there is one"
        )
    others = [dtype for dtype in dtypes(model) if dtype != "float32"]
    if others:
        found.append(
            f"the model holds {' and '.join(others)}; images are given to it as float32, and its logits are judged as "
            "float32"
        )
    if pixels.is_floating_point() and pixels.dtype != torch.float32:
        dtype = str(pixels.dtype).removeprefix("torch.")
        found.append(f"the images are {dtype} and are evaluated as float32")
    return tuple(found)


@contextmanager
def model_errors(doing: str, images: Tensor, hint: str = "") -> Iterator[None]:
    """Turn what a foreign model raises inside into an `AttackError` that names the batch; `images` `[B, C, H, W]`."""
    try:
        yield
    except (RobustNASError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise AttackError(
            f"{doing} of shape {tuple(images.shape[1:])} in a batch of {len(images)}: "
            f"{type(error).__name__}: {first[:200]}{hint}"
        ) from error
