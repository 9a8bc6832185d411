"""Bring what a user hands to `evaluate` into one form, and refuse the rest before anything is attacked.

images   an object with `pixels` and `labels`, a pair (x, y), a torch Dataset of (image, label), a DataLoader of such
         batches; tensors or NumPy arrays
model    a torch module whose tensors have values, or any function of images, wrapped into one
device   the one that the model's tensors are on, or a given one that holds some of them
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from robust_nas.attacks.predictor import FunctionModule
from robust_nas.errors import AttackError, ConfigError, DataWarning, RobustNASError
from robust_nas.evaluation.accuracy import LabelledImages
from robust_nas.nets.devices import usable_device
from robust_nas.nets.values import without_values

ACCEPTED = (
    "images uint8 0..255, or float 0..1, [N, C, H, W] with their classes [N] are needed: an object with `pixels` and "
    "`labels`, a pair (images, labels), a torch.utils.data.Dataset of (image, label) or a DataLoader of such pairs; "
    "tensors or NumPy arrays"
)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Pair(NamedTuple):
    """Images `[N, C, H, W]` and labels `[N]`."""

    pixels: Tensor
    labels: Tensor


def labelled(data: Any) -> LabelledImages:
    """Return images with labels from any accepted form. Raise `AttackError` for another one, and what is accepted."""
    if hasattr(data, "pixels") and hasattr(data, "labels"):
        return _pair(data.pixels, data.labels, "data")
    if isinstance(data, DataLoader):
        _warn_of_dropped(data)
        return _joined(
            [_item(batch, f"batch {number}", data) for number, batch in enumerate(data)], data, torch.cat
        )
    if isinstance(data, tuple | list) and len(data) == 2:
        return _pair(data[0], data[1], "data")
    if isinstance(data, Dataset) and hasattr(data, "__len__"):
        items = [_item(data[index], f"item {index}", data) for index in range(len(data))]
        return _joined(items, data, torch.stack)
    if hasattr(data, "train") and hasattr(data, "test"):
        raise AttackError(f"data: got {type(data).__name__}, training and test images; pass its `test`")
    if isinstance(data, Tensor | np.ndarray):
        raise AttackError(
            f"data: got one {type(data).__name__} of shape {tuple(data.shape)}, no labels; {ACCEPTED}"
        )
    count = f" of {len(data)}" if isinstance(data, tuple | list) else ""
    raise AttackError(f"data: got {type(data).__name__}{count}; {ACCEPTED}")


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


def _pair(pixels: Any, labels: Any, place: str) -> Pair:
    """Return images and labels as tensors, labels of any integer type as int64."""
    if not isinstance(pixels, Tensor | np.ndarray):
        raise AttackError(f"{place}: pixels are {type(pixels).__name__}, no tensor and no array; {ACCEPTED}")
    classes = _tensor(labels, f"{place}: labels")
    return Pair(_tensor(pixels, f"{place}: pixels"), classes.long() if classes.dtype in INTEGERS else classes)


def _item(item: Any, place: str, data: Any) -> Pair:
    """Return an item of a dataset or a batch of a loader as tensors."""
    place = f"data: {place} of {type(data).__name__}"
    if not (isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], Tensor | np.ndarray)):
        parts = item if isinstance(item, tuple | list) else (item,)
        raise AttackError(f"{place} is ({', '.join(type(part).__name__ for part in parts)}); {ACCEPTED}")
    return _pair(item[0], item[1], place)


def _tensor(values: Any, place: str) -> Tensor:
    """Return a tensor of the values: a copy of an array, which may be read-only, reversed or of another byte order."""
    if isinstance(values, Tensor):
        if values.layout != torch.strided or values.is_quantized:
            kind = "quantized" if values.is_quantized else str(values.layout).removeprefix("torch.")
            raise AttackError(f"{place} are a {kind} tensor; a dense one is needed: to_dense(), dequantize()")
        return values
    if isinstance(values, np.ma.MaskedArray):
        raise AttackError(f"{place} are a masked array; fill it, such as by values.filled(0)")
    try:
        array = np.asarray(values)
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError) as error:  # words, objects, lists of several lengths
        raise AttackError(
            f"{place} are {type(values).__name__} and no numbers: {error}; {ACCEPTED}"
        ) from None


def _joined(pairs: list[Pair], data: Any, join: Callable[[list[Tensor]], Tensor]) -> Pair:
    """Return all items or batches as two tensors."""
    if not pairs:
        raise AttackError(f"data: {type(data).__name__} is empty; no images to evaluate on")
    try:
        return Pair(join([pair.pixels for pair in pairs]), join([pair.labels for pair in pairs]))
    except (RuntimeError, TypeError) as error:  # images of several sizes
        raise AttackError(f"data: items of {type(data).__name__} cannot be stacked: {error}") from None


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
