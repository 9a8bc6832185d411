"""What to read and how to augment it, as option values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from robust_nas.config import Count, CountOrZero, Fraction01, Options
from robust_nas.errors import ConfigError

CIFAR10 = "get the binary version, https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
IMAGE_FOLDER = "train/<class>/*.png|jpg|jpeg and test/<class>/*.png|jpg|jpeg are needed"


class Augment(Options):
    """Batched augmentation on the device; zero or false leaves a step out."""

    crop: CountOrZero = 0  # pixels of zero padding on every side before a random crop back to size
    flip: bool = False  # horizontal, with probability 1/2
    cutout: CountOrZero = 0  # side in pixels of a square set to zero


class DataOptions(Options):
    """Which images, and how they are cut up."""

    name: Literal["digits", "fashion-mnist", "cifar10", "image-folder"] = "digits"
    # None: the dataset's usual place, where it has one
    path: Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")] | None = None
    limit: Count | None = None  # at most so many training images, a seeded class-balanced choice
    validation: Annotated[Fraction01, Field(gt=0)] = 0.1  # share of the training images kept for choices
    normalise: Literal["none", "dataset"] = "none"  # first layer of the model: training mean and deviation
    augment: Augment = Augment()

    def location(self) -> Path | None:
        """Where the files are said to be. Raises `ConfigError` when a path is missing, or given to digits."""
        if self.name == "digits" and self.path is not None:
            raise ConfigError(
                f"data.path: got {self.path!r}; digits comes with scikit-learn and takes no path"
            )
        if self.name == "cifar10" and self.path is None:
            raise ConfigError(
                f"data.path: got None; cifar10 needs the folder or archive of its files; {CIFAR10}"
            )
        if self.name == "image-folder" and self.path is None:
            raise ConfigError(
                f"data.path: got None; image-folder needs the folder of the images; {IMAGE_FOLDER}"
            )
        try:
            return None if self.path is None else Path(self.path).expanduser()
        except RuntimeError as error:
            raise ConfigError(f"data.path: got {self.path!r}; {error}") from None
