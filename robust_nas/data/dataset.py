"""A dataset: training and test images, class names, and a checksum of what was read."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass

from robust_nas.data.images import Images, check_labels
from robust_nas.data.options import DataOptions
from robust_nas.data.reader import SplitBy
from robust_nas.data.splits import balanced
from robust_nas.errors import DataError
from robust_nas.lazy import torch


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of one shape with labels 0..classes-1.

    `checksum` is the SHA-256 of the full decoded training and test sets, whatever `limit` left out. `split_by` says who
    divided the images into the two.
    """

    name: str
    train: Images
    test: Images
    class_names: tuple[str, ...]
    checksum: str
    split_by: SplitBy = "user"

    def __post_init__(self) -> None:
        for part, images in (("train", self.train), ("test", self.test)):
            if not images.pixels.numel():
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

    def has_checksum(self, checksum: str) -> bool:
        """Return whether a recorded checksum is of the images of this dataset."""
        return checksum == self.checksum


def load_dataset(options: DataOptions, *, seed: int = 0) -> Dataset:
    """Return the dataset that `options` name, on the CPU, its training set thinned to `options.limit`.

    Args:
        options: name, path, the reader's options and limit are used here.
        seed: of the choice that `limit` makes.

    Raises:
        DataError: files are missing, truncated or mislabelled.
        ConfigError: the path is missing where one is needed, or the limit is below the number of classes.
    """
    reader = options.reader
    parts = reader.read(reader.location(options.path))
    if not (isinstance(parts, tuple) and [type(part) for part in parts] == [Images, Images, tuple]):
        raise DataError(
            f"{reader.name}: `read` returned {type(parts).__name__}; Parts(train, test, class_names) is needed, "
            "the first two of them Images, the last a tuple"
        )
    train, test, class_names = parts
    full = Dataset(reader.label, train, test, class_names, _checksum(train, test), reader.split_by)
    if options.limit is None or options.limit >= len(train):
        return full
    kept = train.subset(balanced(train.labels, options.limit, seed))
    return dataclasses.replace(full, train=kept)


def _checksum(*parts: Images) -> str:
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
