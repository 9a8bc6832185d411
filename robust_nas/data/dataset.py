"""A dataset: training and test images, class names, and a checksum of what was read."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from robust_nas.data.images import Images, check_class_name, check_labels
from robust_nas.data.options import DataOptions
from robust_nas.data.reader import FILES, DatasetReader, Parts, Remark, SplitBy
from robust_nas.data.splits import balanced
from robust_nas.errors import DataError, DataWarning
from robust_nas.lazy import torch


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of one shape with labels 0..classes-1.

    `checksum` is the SHA-256 of the full decoded training and test sets, whatever `limit` left out; or, of a limited
    image folder, which is not decoded in full, `files:` and a digest of all its files. `split_by` says who divided the
    images into the two, `remarks` what the reader passed over.
    """

    name: str
    train: Images
    test: Images
    class_names: tuple[str, ...]
    checksum: str
    split_by: SplitBy = "user"
    remarks: tuple[Remark, ...] = ()
    other_form: Callable[[str], bool] | None = None  # whether a checksum of the other form is of these images

    def __repr__(self) -> str:
        sizes = f"{len(self.train)} training and {len(self.test)} test images"
        return f"<Dataset {self.name}: {sizes} of {'x'.join(map(str, self.shape))}, {self.classes} classes>"

    def __post_init__(self) -> None:
        for name in self.class_names:
            check_class_name(name, self.name)
        for part, images in (("train", self.train), ("test", self.test)):
            if not images.pixels.numel() and (part == "train" or self.split_by != "nobody"):
                raise DataError(f"{self.name}: {part} is empty, shape {tuple(images.pixels.shape)}")
            check_labels(images.labels, self.classes, f"{self.name} {part}")
        if self.train.pixels.shape[1:] != self.test.pixels.shape[1:]:
            raise DataError(
                f"{self.name}: training images are {tuple(self.train.pixels.shape[1:])}, test images "
                f"{tuple(self.test.pixels.shape[1:])}; one shape is needed"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return channels, height, width."""
        _, C, H, W = self.train.pixels.shape
        return C, H, W

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return len(self.class_names)

    @cached_property
    def test_checksum(self) -> str:
        """Return the SHA-256 of the test images and labels alone."""
        return checksum_of(self.test)

    @cached_property
    def warnings(self) -> tuple[Remark, ...]:
        """Return the remarks of the reader, and the classes without images in one of the parts."""
        found = []
        for images, part, never in ((self.train, "training", "trained"), (self.test, "test", "tested")):
            if not len(images):  # handed over without test images
                continue
            present = set(images.labels.tolist())
            absent = [name for label, name in enumerate(self.class_names) if label not in present]
            if absent:
                named = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
                text = f"{len(absent)} of {self.classes} classes have no {part} image and are never {never}: {named}"
                found.append(Remark(text, f"add {part} images of these classes, or leave the classes out"))
        return (*self.remarks, *found)

    def warn(self) -> None:
        """Warn (`DataWarning`) of what a reader of figures must know of the images."""
        for remark in self.warnings:
            warnings.warn(f"{self.name}: {remark.text}; {remark.advice}", DataWarning, stacklevel=3)

    def limited(self, limit: int | None, seed: int) -> Dataset:
        """Return the dataset with `limit` training images, a class-balanced choice; itself where there are fewer."""
        if limit is None or limit >= len(self.train):
            return self
        return dataclasses.replace(self, train=self.train.subset(balanced(self.train.labels, limit, seed)))

    def has_checksum(self, checksum: str) -> bool:
        """Return whether a recorded checksum is of the images of this dataset, also if recorded with another limit."""
        return checksum == self.checksum or (self.other_form is not None and self.other_form(checksum))


def load_dataset(options: DataOptions, *, seed: int = 0) -> Dataset:
    """Return the dataset that `options` name, on the CPU, its training set thinned to `options.limit`.

    What a reader of figures must know of the images is a `DataWarning`.

    Args:
        options: name, path, the reader's options and limit are used here.
        seed: of the choice that `limit` makes.

    Raises:
        DataError: files are missing, truncated or mislabelled.
        ConfigError: the path is missing where one is needed, or the limit is below the number of classes.
    """
    reader, limit = options.reader, options.limit
    path = reader.location(options.path)
    digest = None if limit is None else reader.digest(path)
    if limit is None or digest is None:
        parts = _checked(reader, reader.read(path))
    else:
        parts = _checked(reader, reader.read_chosen(path, lambda labels: balanced(labels, limit, seed)))

    @functools.cache
    def other_form(checksum: str) -> bool:
        if checksum.startswith(FILES):
            return digest is None and checksum == reader.digest(path)
        return digest is not None and checksum == checksum_of(*_checked(reader, reader.read(path))[:2])

    train, test, class_names = parts
    dataset = Dataset(
        reader.label,
        train,
        test,
        class_names,
        digest or checksum_of(train, test),
        reader.split_by,
        reader.remarks(path),
        other_form,
    )
    dataset = dataset.limited(limit, seed)
    if reader.split_by == "user":
        dataset = dataclasses.replace(dataset, remarks=(*dataset.remarks, *in_both(dataset)))
    dataset.warn()
    return dataset


def in_both(dataset: Dataset) -> tuple[Remark, ...]:
    """Return how many test images are training images too, if any."""
    seen, tested = (
        [hashlib.blake2b(image, digest_size=16).digest() for image in images.pixels.numpy()]
        for images in (dataset.train, dataset.test)
    )
    count = sum(map(set(seen).__contains__, tested))
    text = f"{count} of {len(tested)} test images are training images too, pixel for pixel"
    advice = "keep an image in one of the parts: accuracy on images that were trained on is no test"
    return (Remark(text, advice),) if count else ()


def _checked(reader: DatasetReader, parts: Any) -> Parts:
    """Return what a reader, maybe of a plugin, returned. Raise `DataError` where it is no `Parts`."""
    if not (isinstance(parts, tuple) and [type(part) for part in parts] == [Images, Images, tuple]):
        raise DataError(
            f"{reader.name}: `read` returned {type(parts).__name__}; Parts(train, test, class_names) is needed, "
            "the first two of them Images, the last a tuple"
        )
    train, test, names = parts
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(
            f"{reader.name}: class name {str(twice[0])[:200]!r} is given twice; each class needs its own"
        )
    return Parts(_plain(train), _plain(test), names)


def _plain(images: Images) -> Images:
    """Return the images on the CPU and in one piece: a reader may permute channels, or leave images out by a step."""
    return Images(images.pixels.cpu().contiguous(), images.labels.cpu().contiguous())


def checksum_of(*parts: Images) -> str:
    """Return the SHA-256 of images and labels."""
    digest = hashlib.sha256()
    for images in parts:
        for array in (images.pixels.numpy(), images.labels.numpy().astype("<i8")):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.data)
    return digest.hexdigest()


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel on the 0..1 scale; a constant channel gets deviation 1.

    Exact: from a histogram of the 256 values, so that no float copy of the images is made.
    """
    channels = images.pixels.cpu().transpose(0, 1).flatten(1)  # [C, N * H * W]
    # bincount takes one channel at a time; there are one or three
    counts = torch.stack([torch.bincount(channel, minlength=256) for channel in channels]).double()
    shares = counts / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = shares @ values
    variance = (shares * (values - mean[:, None]) ** 2).sum(1)
    deviation = torch.where((counts > 0).sum(1) > 1, variance.sqrt(), 1.0)
    return tuple(mean.tolist()), tuple(deviation.tolist())
