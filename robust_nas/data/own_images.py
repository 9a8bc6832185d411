"""Bring images with labels that Python code hands over into one form, and refuse the rest before any work.

arrays         a pair (images, labels), or an object with `pixels` and `labels`; tensors or NumPy arrays
torch          a `Dataset` of (image, label), a `DataLoader` of such batches
Hugging Face   a dataset whose rows are mappings with an image and a label; pictures of PIL are taken, too

N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from robust_nas.errors import DataError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

ACCEPTED = (
    "images uint8 0..255, or float 0..1, [N, C, H, W] with their classes [N] are needed: an object with `pixels` and "
    "`labels`, a pair (images, labels), a torch.utils.data.Dataset of (image, label) or a DataLoader of such pairs, a "
    "Hugging Face dataset with the columns image and label; tensors or NumPy arrays"
)
IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img"), ("label", "labels")
GREY, COLOUR = "L", "RGB"  # the pictures of PIL that are taken


class Pair(NamedTuple):
    """Images `[N, C, H, W]` and labels `[N]`."""

    pixels: Tensor
    labels: Tensor


def labelled_images(data: Any) -> Pair:
    """Return images with labels from any accepted form. Raise `DataError` for another one, and what is accepted."""
    from torch.utils.data import DataLoader

    if hasattr(data, "pixels") and hasattr(data, "labels"):
        return _pair(data.pixels, data.labels, "data")
    if isinstance(data, DataLoader):
        batches = [_item(batch, f"batch {number}", data, rows=False) for number, batch in enumerate(data)]
        return _joined(batches, data, torch.cat)
    if isinstance(data, tuple | list) and len(data) == 2:
        return _pair(data[0], data[1], "data")
    if has_items(data):
        items = [_item(data[index], f"item {index}", data, rows=True) for index in range(len(data))]
        return _joined(items, data, torch.stack)
    if isinstance(data, torch.Tensor | np.ndarray):
        raise DataError(
            f"data: got one {type(data).__name__} of shape {tuple(data.shape)}, no labels; {ACCEPTED}"
        )
    count = f" of {len(data)}" if isinstance(data, tuple | list) else ""
    raise DataError(f"data: got {type(data).__name__}{count}; {ACCEPTED}")


def first_images(data: Any, count: int) -> Pair | None:
    """Return the first `count` images of a dataset, or the first batch of a loader; None of arrays."""
    from torch.utils.data import DataLoader

    if isinstance(data, DataLoader):
        return _item(next(iter(data)), "batch 0", data, rows=False)
    if not has_items(data):
        return None
    items = [_item(data[index], f"item {index}", data, rows=True) for index in range(min(count, len(data)))]
    return _joined(items, data, torch.stack)


def has_items(data: Any) -> bool:
    """Return whether `data` is a torch or Hugging Face dataset whose items can be read one by one."""
    from torch.utils.data import Dataset

    known = isinstance(data, Dataset) or hasattr(data, "column_names")
    return (
        known and not isinstance(data, Mapping) and hasattr(data, "__len__") and hasattr(data, "__getitem__")
    )


def class_names_of(data: Any) -> tuple[str, ...] | None:
    """Return the names that a dataset, or the dataset of a loader or of a subset, gives its classes; else None."""
    while data is not None:
        features = getattr(data, "features", None)
        labels = (
            [features[key] for key in LABEL_COLUMNS if key in features]
            if isinstance(features, Mapping)
            else []
        )
        for holder, key in (
            (data, "class_names"),
            *((label, "names") for label in labels),
            (data, "classes"),
        ):
            names = getattr(holder, key, None)
            if isinstance(names, Sequence) and names and all(isinstance(name, str) for name in names):
                return tuple(names)
        data = getattr(data, "dataset", None)
    return None


def _pair(pixels: Any, labels: Any, place: str) -> Pair:
    """Return images and labels as tensors, labels of any integer type as int64."""
    if not isinstance(pixels, torch.Tensor | np.ndarray):
        raise DataError(f"{place}: pixels are {type(pixels).__name__}, no tensor and no array; {ACCEPTED}")
    classes = _tensor(labels, f"{place}: labels")
    integers = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    return Pair(_tensor(pixels, f"{place}: pixels"), classes.long() if classes.dtype in integers else classes)


def _item(item: Any, place: str, data: Any, *, rows: bool) -> Pair:
    """Return an item of a dataset, or a batch of a loader, as tensors; `rows` are single images."""
    place = f"data: {place} of {type(data).__name__}"
    if isinstance(item, Mapping):
        image, label = (item[_column(item, known, place)] for known in (IMAGE_COLUMNS, LABEL_COLUMNS))
        item = (_channels_first(image) if rows else image, label)
    if isinstance(item, tuple | list) and len(item) == 2:
        image = _picture(item[0], place)
        if isinstance(image, torch.Tensor | np.ndarray):
            return _pair(image, item[1], place)
    parts = item if isinstance(item, tuple | list) else (item,)
    raise DataError(f"{place} is ({', '.join(type(part).__name__ for part in parts)}); {ACCEPTED}")


def _column(row: Mapping[str, Any], known: Sequence[str], place: str) -> str:
    """Return the column of a row that has one of the known names. Raise `DataError` for none and for several."""
    found = [name for name in known if name in row]
    if len(found) != 1:
        raise DataError(
            f"{place} has the columns {', '.join(map(str, row))}; one of {' or '.join(known)} is needed: rename it, "
            f"such as by data.rename_column(OLD, {known[0]!r})"
        )
    return found[0]


def _picture(image: Any, place: str) -> Any:
    """Return a picture of PIL as an array `[C, H, W]`; anything else as it is."""
    if not (hasattr(image, "mode") and hasattr(image, "convert")):
        return image
    if image.mode not in (GREY, COLOUR):
        raise DataError(
            f"{place} is a picture of mode {image.mode!r}; {GREY} (grey) or {COLOUR} is needed: "
            f"image.convert({COLOUR!r})"
        )
    return _channels_first(np.asarray(image))


def _channels_first(image: Any) -> Any:
    """Return the image of a row as `[C, H, W]`: arrays of pictures are `[H, W]` or `[H, W, C]`."""
    if isinstance(image, torch.Tensor | np.ndarray):
        if image.ndim == 2:
            return image[None]
        if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] in (1, 3) and len(image) > 4:
            return image.transpose(2, 0, 1)
    return image


def _tensor(values: Any, place: str) -> Tensor:
    """Return a tensor of the values: a copy of an array, which may be read-only, reversed or of another byte order."""
    if isinstance(values, torch.Tensor):
        if values.layout != torch.strided or values.is_quantized:
            kind = "quantized" if values.is_quantized else str(values.layout).removeprefix("torch.")
            raise DataError(f"{place} are a {kind} tensor; a dense one is needed: to_dense(), dequantize()")
        return values
    if isinstance(values, np.ma.MaskedArray):
        raise DataError(f"{place} are a masked array; fill it, such as by values.filled(0)")
    try:
        array = np.asarray(values)
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError) as error:  # words, objects, lists of several lengths
        raise DataError(f"{place} are {type(values).__name__} and no numbers: {error}; {ACCEPTED}") from None


def _joined(pairs: list[Pair], data: Any, join: Callable[[list[Tensor]], Tensor]) -> Pair:
    """Return all items or batches as two tensors."""
    if not pairs:
        raise DataError(f"data: {type(data).__name__} is empty; it holds no images")
    try:
        return Pair(join([pair.pixels for pair in pairs]), join([pair.labels for pair in pairs]))
    except (RuntimeError, TypeError) as error:  # images of several sizes
        raise DataError(f"data: items of {type(data).__name__} cannot be stacked: {error}") from None
