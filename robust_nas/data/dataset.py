"""A dataset: training and test images, class names, and a checksum of what was read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from robust_nas.data.images import Images, check_labels
from robust_nas.data.options import DataOptions
from robust_nas.data.splits import balanced
from robust_nas.errors import DataError

__all__ = ["Dataset", "Images", "channel_statistics", "load_dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of one shape with labels 0..classes-1.

    `checksum` is the SHA-256 of the full decoded training and test sets, whatever `limit` left out.
    """

    name: str
    train: Images
    test: Images
    class_names: tuple[str, ...]
    checksum: str

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
        """Channels, height, width."""
        _, C, H, W = self.train.pixels.shape
        return C, H, W

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def load_dataset(options: DataOptions, *, seed: int = 0) -> Dataset:
    """The dataset that `options` name, on the CPU, its training set thinned to `options.limit`.

    Args:
        options: name, path and limit are used here.
        seed: of the choice that `limit` makes.

    Raises:
        DataError: files are missing, truncated or mislabelled.
        ConfigError: the path is missing where one is needed, or the limit is below the number of classes.
    """
    train, test, class_names = _read(options)
    full = Dataset(options.name, train, test, class_names, _checksum(train, test))
    if options.limit is None or options.limit >= len(train):
        return full
    kept = train.subset(balanced(train.labels, options.limit, seed))
    return Dataset(full.name, kept, test, class_names, full.checksum)


def _read(options: DataOptions) -> tuple[Images, Images, tuple[str, ...]]:
    path = options.location()
    # A reader is imported when it is asked for: scikit-learn alone takes a second.
    if options.name == "digits":
        from robust_nas.data.digits import read_digits

        return read_digits()
    if options.name == "fashion-mnist":
        from robust_nas.data.idx import DEFAULT_FOLDER, read_fashion_mnist

        return read_fashion_mnist(path or DEFAULT_FOLDER)
    assert path is not None  # noqa: S101 - `location` has refused it
    if options.name == "cifar10":
        from robust_nas.data.cifar import read_cifar10

        return read_cifar10(path)
    from robust_nas.data.folder import read_image_folder

    return read_image_folder(path)


def _checksum(*parts: Images) -> str:
    digest = hashlib.sha256()
    for images in parts:
        for array in (images.pixels.numpy(), images.labels.numpy().astype("<i8")):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.data)
    return digest.hexdigest()


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel on the 0..1 scale; a constant channel gets deviation 1.

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
