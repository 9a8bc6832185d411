"""The dataset `in-memory`: images that Python code hands to `train` or `run_search`, known by their checksum.

A run records the checksum, and no place: it is continued in Python, with the same images, and refused with others.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from robust_nas.data.dataset import Dataset, checksum_of, in_both
from robust_nas.data.images import Images
from robust_nas.data.own_images import Pair, class_names_of, first_images, labelled_images
from robust_nas.data.reader import DatasetReader, Parts, SplitBy
from robust_nas.errors import ConfigError, DataError, DataWarning, RobustNASError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

READ_TWICE = 32  # items of a dataset that are compared with a second reading
ROUNDED = 0.01  # of a level of 256: what arithmetic in float32 explains


class InMemory(DatasetReader):
    """Images that Python code hands over, as in `robust_nas.train(config, architecture, data=...)`."""

    takes_path: ClassVar[bool] = False
    stored: ClassVar[bool] = False
    where: ClassVar[str] = "is handed over in Python: robust_nas.train(config, architecture, data=...)"
    split_by: ClassVar[SplitBy] = "nobody"

    name: Literal["in-memory"] = "in-memory"
    checksum: str = ""  # SHA-256 of the images; written by the run, not by a person

    def location(self, path: str | None) -> NoReturn:
        """Raises `ConfigError`: no file holds the images."""
        known = f" (checksum {self.checksum[:12]})" if self.checksum else ""
        raise ConfigError(
            f"data.name: got 'in-memory'{known}; the images are not stored, they {self.where}; to take stored images, "
            "name them by data.name=NAME and data.path=PATH"
        )

    def read(self, path: Path | None) -> Parts:
        """Raises `ConfigError` as `location` does."""
        return self.location(None)


def as_dataset(
    data: Any, test: Any = None, *, class_names: Sequence[str] | None = None, name: str = "in-memory"
) -> Dataset:
    """Return images of any form that `evaluate` takes as a `Dataset` for `train` and `run_search`, on the CPU.

    A `DataLoader` is read in the order of its dataset, whether it shuffles or not: a training shuffles by its own seed,
    and a run is known by the checksum of its images, so they must be the same, in the same order, at every reading.

    Args:
        data: training images; or both parts, as a `Dataset` of this package or a mapping with `train` and maybe `test`.
        test: test images; without them there is nothing to evaluate on.
        class_names: default: the names that `data` has, or the numbers 0, 1, ...
        name: what records and figures call it.

    Raises:
        DataError: another form, size or range; labels that are no classes; images that change from reading to reading,
            as under a random transform.
    """
    if isinstance(data, Dataset):
        if test is not None or class_names is not None:
            raise DataError("data: a Dataset has test images and class names; leave test and class_names out")
        return Dataset(
            data.name,
            data.train,
            data.test,
            data.class_names,
            checksum_of(data.train, data.test),
            data.split_by,
            data.remarks,
        )
    if isinstance(data, Mapping) and "train" in data:
        if test is not None and "test" in data:
            raise DataError("data: holds test images, and test is given; leave one of them out")
        data, test = data["train"], data.get("test", test)
    train = _images(data, "data")
    tested = Images(train.pixels[:0], train.labels[:0]) if test is None else _images(test, "test")
    names = tuple(class_names) if class_names is not None else class_names_of(data) or _numbers(train, tested)
    if len(names) < 2:
        raise DataError(f"data: has {len(names)} class; at least 2 are needed")
    checksum = checksum_of(train, tested)
    dataset = Dataset(name, train, tested, names, checksum, "nobody" if test is None else "user")
    if test is not None:
        dataset = Dataset(name, train, tested, names, checksum, "user", in_both(dataset))
    dataset.warn()
    return dataset


def _numbers(*parts: Images) -> tuple[str, ...]:
    """Return a number for each class. Raise `DataError` for labels that are no numbers of classes from 0 on."""
    labels = sorted({label for part in parts for label in part.labels.tolist()})
    if labels[0] < 0 or len(labels) <= labels[-1] // 2:
        raise DataError(
            f"data: labels go from {labels[0]} to {labels[-1]} and are of {len(labels)} classes; number the "
            "classes from 0, or name them all by class_names"
        )
    return tuple(map(str, range(labels[-1] + 1)))


def _images(data: Any, place: str) -> Images:
    """Return training or test images as they are kept: uint8."""
    ordered = _in_order(data)
    try:
        pair = labelled_images(ordered)
        again = first_images(ordered, READ_TWICE)
    except RobustNASError as error:
        raise DataError(str(error).replace("data:", f"{place}:", 1)) from None
    except Exception as error:  # whatever a dataset, a transform or a collate function of the user's raises
        raise DataError(
            f"{place}: {type(data).__name__} cannot be read: {type(error).__name__}: {error}"
        ) from error
    images = Images(_pixels(pair.pixels, place), _labels(pair, place))
    if again is not None:
        first = images.pixels[: len(again.labels)]
        if not torch.equal(first, _pixels(again.pixels, place)) or not torch.equal(
            images.labels[: len(again.labels)], _labels(again, place)
        ):
            raise DataError(
                f"{place}: {type(data).__name__} gives other images, or another order, at each reading; a run can be "
                "continued with the same images alone: leave random transforms out (data.augment has them) and let "
                "the training shuffle"
            )
    return images


def _in_order(data: Any) -> Any:
    """Return a loader that reads all of its dataset in order, in the place of one that shuffles or drops images."""
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

    batches = data.batch_sampler if isinstance(data, DataLoader) else None
    if type(batches) is not BatchSampler or type(batches.sampler) not in (RandomSampler, SequentialSampler):
        return data
    return DataLoader(
        data.dataset, batch_size=batches.batch_size, num_workers=data.num_workers, collate_fn=data.collate_fn
    )


def _pixels(values: Tensor, place: str) -> Tensor:
    """Return images as uint8 `[N, C, H, W]`: floats in 0..1 in the nearest of 256 levels, with a warning of it."""
    shape = tuple(values.shape)
    if values.ndim != 4 or not values.numel():
        hint = "; grey images have one channel: images[:, None]" if values.ndim == 3 else ""
        raise DataError(f"{place}: images are of shape {shape}; [N, C, H, W] is needed{hint}")
    if shape[3] in (1, 3) and min(shape[1:3]) > 4:
        raise DataError(
            f"{place}: images are of shape {shape}, {shape[1]} channels of {shape[2]}x{shape[3]} pixels; where "
            "channels are last, move them with images.permute(0, 3, 1, 2)"
        )
    values = values.detach().cpu()
    if values.dtype == torch.uint8:
        if int(values.max()) <= 1:
            warnings.warn(
                f"{place}: images are uint8 and reach to 1 of 255, almost black; values in 0..1 are given as float",
                DataWarning,
                stacklevel=5,
            )
        return values.contiguous()
    if not values.is_floating_point():
        raise DataError(f"{place}: images are {values.dtype}; uint8 in 0..255 or float in 0..1 is needed")
    low, high = float(values.min()), float(values.max())
    if not (values.isfinite().all() and low >= 0 and high <= 1):
        raise DataError(
            f"{place}: images go from {low:.4g} to {high:.4g}; 0..1 is needed, and finite: leave a normalisation out "
            "of the transforms, it is a layer of the model (data.normalise)"
        )
    levels = values.float() * 255
    rounded = levels.round()
    if float((levels - rounded).abs().max()) > ROUNDED:
        warnings.warn(
            f"{place}: images have values between the 256 levels of a picture; each is rounded to the nearest one",
            DataWarning,
            stacklevel=5,
        )
    return rounded.to(torch.uint8).contiguous()


def _labels(pair: Pair, place: str) -> Tensor:
    """Return labels as int64 `[N]`."""
    labels = pair.labels
    if labels.dtype != torch.int64 or labels.shape != pair.pixels.shape[:1]:
        hint = "; of one column a class take labels.argmax(1)" if labels.ndim == 2 else ""
        raise DataError(
            f"{place}: labels are {labels.dtype} of shape {tuple(labels.shape)}; whole numbers of shape "
            f"({len(pair.pixels)},) are needed{hint}"
        )
    return labels.detach().cpu().contiguous()
