"""The dataset `npz`: training images from an `.npz` file, such as a learned set; test images of another dataset.

    data: {name: npz, path: results/quickstart-adv-kip/learned.npz, options: {test: {name: digits}}}

The file has `image` and `label` as `npz.py` reads them. Where it has `class_names`, these must be the other dataset's.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from robust_nas.config import AbsolutePath
from robust_nas.data import npz
from robust_nas.data.digits import Digits
from robust_nas.data.reader import DATASETS, DatasetReader, Parts
from robust_nas.errors import ConfigError, DataError

CLASS_NAMES = "class_names"


class NpzSet(DatasetReader):
    """Training images from an `.npz` file: arrays `image` (uint8) and `label`; test images of the dataset `test`."""

    files: ClassVar[str] = "the .npz file of the training images"
    where: ClassVar[str] = (
        "an .npz file with the arrays image and label, as robust-nas distill writes learned.npz"
    )

    name: Literal["npz"] = "npz"
    test: Annotated[DatasetReader, DATASETS.field()] = Digits()  # dataset whose test images are taken
    test_path: AbsolutePath | None = None  # of the dataset `test`; None: its usual place

    def location(self, path: str | None) -> Path | None:
        """Return the path of the file. Raises as any reader, also where the images of `test` are not there."""
        found = super().location(path)
        try:
            self.test.location(self.test_path)
        except (ConfigError, DataError) as error:
            raise type(error)(str(error).replace("data.path", "data.options.test_path")) from None
        return found

    def read(self, path: Path | None) -> Parts:
        """Return the images of the file for training, and the other dataset's test images and class names."""
        assert path is not None  # noqa: S101 - `location` has refused it
        _, test, class_names = self.test.read(self.test.location(self.test_path))
        own = _class_names(path)
        if own is not None and own != class_names:
            raise DataError(
                f"{path}: has images of the classes {', '.join(own[:4])}, ...; the test images of {self.test.label} "
                f"are of {', '.join(class_names[:4])}, ...: name the dataset that it was made of by data.options.test"
            )
        return Parts(npz.load(str(path), tuple(test.pixels.shape[1:]), len(class_names)), test, class_names)


def _class_names(path: Path) -> tuple[str, ...] | None:
    """Return the names that the file gives its classes, or None."""
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{CLASS_NAMES}.npy" not in archive.namelist():
                return None
            shape, dtype = npz.header(archive, CLASS_NAMES, str(path))
            if len(shape) != 1 or dtype.kind != "U":
                raise DataError(
                    f"{path}: {CLASS_NAMES} is {dtype} of shape {shape}; a list of texts is needed"
                )
            return tuple(str(name) for name in npz.array(archive, CLASS_NAMES))
    except DataError:
        raise
    except Exception as error:  # zip and header parsers raise OSError, BadZipFile, ValueError, ...
        raise DataError(f"{path}: cannot be read as .npz: {error}") from None
