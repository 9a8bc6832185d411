"""The protocol of dataset readers, and `DATASETS`, which knows them by name.

A new dataset is a subclass with `read`, in a file of its own, and a line in `DATASETS`. A reader that has options gets
them from the key `data.options` of a config.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from robust_nas.config import expand_path
from robust_nas.errors import ConfigError, DataError
from robust_nas.registry import Method, Registry

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.data.images import Images


# Who divided a dataset into training and test images: its publishers; robust_nas, where they have not; or the user,
# by the folders of the images, in a reader or in Python. Nobody: there are no test images.
SplitBy = Literal["publishers", "robust_nas", "user", "nobody"]


FILES = "files:"  # before a digest of files in the place of a checksum of images


class Remark(NamedTuple):
    """What a reader of figures must know of the images, and what can be done about it."""

    text: str
    advice: str


class Parts(NamedTuple):
    """What a reader returns: all training and test images, of one shape, and the name of each class."""

    train: Images
    test: Images
    class_names: tuple[str, ...]


Choose = Callable[["Tensor"], "Tensor"]  # from the labels of all training images to the indices of some


class DatasetReader(Method):
    """Base of all dataset readers."""

    takes_path: ClassVar[bool] = True  # whether the files are read from a path
    default_path: ClassVar[Path | None] = None  # the usual place of the files; None: a config has to name one
    files: ClassVar[str] = "the folder of its files"  # what the path leads to, for messages
    where: ClassVar[str] = ""  # where to get the files, for messages
    stored: ClassVar[bool] = True  # whether the images lie somewhere, and can be read again
    split_by: ClassVar[SplitBy] = "user"  # who divided it into training and test images

    def location(self, path: str | None) -> Path | None:
        """Return the path of the files; None where the dataset has none. Nothing is read, torch is not imported.

        Raises `ConfigError` for a path that is needed or not taken, and `DataError` where there is nothing at the path.
        """
        if not self.takes_path:
            if path is not None:
                own = f"{self.label} {self.where} and" if self.where else self.label
                raise ConfigError(f"data.path: got {path!r}; {own} takes no path")
            return None
        hint = f"; {self.where}" if self.where else ""
        if path is None and self.default_path is None:
            raise ConfigError(f"data.path: got None; {self.label} needs {self.files}{hint}")
        try:
            found = self.default_path if path is None else expand_path(path)
            missing = found is None or not found.exists()
        except (ConfigError, OSError, ValueError) as error:  # no such user, too long, a zero byte
            raise ConfigError(f"data.path: got {path!r}; {error}") from None
        if missing:
            raise DataError(
                f"{found}: no such folder or file; images that have moved are named by data.path=PATH{hint}"
            )
        return found

    def read(self, path: Path | None) -> Parts:
        """Return all images of the dataset, on the CPU; `path` is the one that `location` returned.

        Raises `DataError` for a file that is missing, damaged or mislabelled.
        """
        raise NotImplementedError(f"{type(self).__name__} does not read anything")

    def read_chosen(self, path: Path | None, choose: Choose) -> Parts:
        """Return the dataset with the training images at the indices of `choose(labels)` alone.

        A reader that can leave the others out without decoding them has this, and `digest`.
        """
        parts = self.read(path)
        return parts._replace(train=parts.train.subset(choose(parts.train.labels)))

    def digest(self, path: Path | None) -> str | None:
        """Return `files:` and a digest of the files, by which a chosen part is known; None: it is read whole."""
        return None

    def remarks(self, path: Path | None) -> tuple[Remark, ...]:
        """Return what is passed over at the path, which was read before."""
        return ()


DATASETS = Registry(
    "dataset",
    DatasetReader,
    "robust_nas.data",
    {
        "digits": "digits:Digits",
        "fashion-mnist": "fashion_mnist:FashionMNIST",
        "cifar10": "cifar10:CIFAR10",
        "image-folder": "image_folder:ImageFolder",
        "npz": "npz_set:NpzSet",
        "in-memory": "in_memory:InMemory",
    },
    group="robust_nas.datasets",
)
