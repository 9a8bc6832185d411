"""What to read and how to augment it, as option values."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from robust_nas.config import Count, CountOrZero, Fraction01, Options


class Augment(Options):
    """Batched augmentation on the device; zero or false leaves a step out."""

    crop: CountOrZero = 0  # pixels of zero padding on every side before a random crop back to size
    flip: bool = False  # horizontal, with probability 1/2
    cutout: CountOrZero = 0  # side in pixels of a square set to zero


class DataOptions(Options):
    """Which images, and how they are cut up."""

    name: Literal["digits", "fashion-mnist", "cifar10", "image-folder"] = "digits"
    path: str | None = None  # None: the dataset's usual place, where it has one
    limit: Count | None = None  # at most so many training images, a seeded class-balanced choice
    validation: Fraction01 = Field(default=0.1)  # share of the training images kept for choices
    normalise: Literal["none", "dataset"] = "none"  # first layer of the model: training mean and deviation
    augment: Augment = Augment()
