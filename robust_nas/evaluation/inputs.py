"""Bring what a user hands to `evaluate` into one form, and refuse the rest before anything is attacked.

images   `data/own_images.py`: arrays, a torch Dataset or DataLoader, a Hugging Face dataset
model    a torch module whose tensors have values, or any function of images, wrapped into one
device   the one that the model's tensors are on, or a given one that holds some of them
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from robust_nas.attacks.predictor import FunctionModule
from robust_nas.data.own_images import labelled_images
from robust_nas.errors import AttackError, ConfigError, DataError, DataWarning, RobustNASError
from robust_nas.evaluation.accuracy import LabelledImages
from robust_nas.nets.devices import usable_device
from robust_nas.nets.values import without_values


def labelled(data: Any) -> LabelledImages:
    """Return images with labels from any accepted form. Raise `AttackError` for another one, and what is accepted."""
    if isinstance(data, DataLoader):
        _warn_of_dropped(data)
    try:
        return labelled_images(data)
    except DataError as error:
        if hasattr(data, "train") and hasattr(data, "test"):
            raise AttackError(
                f"data: got {type(data).__name__}, training and test images; pass its `test`"
            ) from None
        raise AttackError(str(error)) from None


def _warn_of_dropped(loader: DataLoader[Any]) -> None:
    """Warn of the images that a loader leaves out because they fill no batch."""
    sampler, batch = loader.sampler, loader.batch_size
    if loader.drop_last and batch and isinstance(sampler, Sized) and (dropped := len(sampler) % batch):
        warnings.warn(
            f"data: the DataLoader leaves out {dropped} of {len(sampler)} images (drop_last=True); "
            "make one with drop_last=False to evaluate on all of them",
            DataWarning,
            stacklevel=4,
        )


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
    if pixels.dtype == torch.uint8 and int(pixels.max()) <= 1:
        found.append(
            "the images are uint8 and reach to 1 of 255, almost black; values in 0..1 are given as float"
        )
    _, channels, height, width = pixels.shape
    if width in (1, 3) and min(channels, height) > 4:
        found.append(
            f"the images have {channels} channels of {height}x{width} pixels; where channels are last, move them with "
            "images.permute(0, 3, 1, 2)"
        )
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
