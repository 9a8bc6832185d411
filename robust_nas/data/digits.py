"""The embedded default: scikit-learn's `digits`, 1,797 real 8x8 images of handwritten digits, values 0..16.

A fifth of the images (360) is the test set, chosen once and for all by a class-stratified draw with a
constant seed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from robust_nas.data.images import Images
from robust_nas.data.reader import DatasetReader, Parts, SplitBy
from robust_nas.data.splits import split
from robust_nas.lazy import torch

CLASS_NAMES = tuple("0123456789")
TEST_IMAGES = 360
SPLIT_SEED = 1797  # part of what this dataset is: another value would be another benchmark


class Digits(DatasetReader):
    """Handwritten digits of 8x8 pixels, embedded in scikit-learn."""

    takes_path: ClassVar[bool] = False
    where: ClassVar[str] = "comes with scikit-learn"
    split_by: ClassVar[SplitBy] = "robust_nas"

    name: Literal["digits"] = "digits"

    def read(self, path: Path | None) -> Parts:
        """Return training images (1,437), test images (360) and class names; [N, 1, 8, 8]."""
        values, targets = _values()
        pixels = np.rint(values.reshape(-1, 1, 8, 8) * 255 / 16).astype(np.uint8)
        images = Images(torch.from_numpy(pixels), torch.from_numpy(targets.astype(np.int64)))
        train, test = split(images.labels, TEST_IMAGES / len(images), SPLIT_SEED)
        return Parts(images.subset(train), images.subset(test), CLASS_NAMES)


def _values() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return values [1797, 64] in 0..16 and classes [1797], from scikit-learn's file where it lies as in all releases.

    Importing scikit-learn takes two seconds, ten times as long as reading its file.
    """
    found = find_spec("sklearn")
    if found is not None and found.origin is not None:
        file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits

    values, targets = load_digits(return_X_y=True)
    return values, targets
