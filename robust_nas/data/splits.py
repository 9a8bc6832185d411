"""Seeded choices of images: splitting a training set, thinning it, and taking some images at random.

The class-stratified draws come from NumPy's `RandomState`, whose stream is frozen by NumPy's compatibility
policy: a split stays the same across versions, devices and machines, so that a repeated run sees the same images.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robust_nas.errors import ConfigError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Ints = npt.NDArray[np.int64]


def split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the first part (share 1 - `fraction`) and of the second (share `fraction`), each ascending.

    The parts are disjoint and complete; the second holds `fraction * N` images rounded, and of every class
    that share within one image.

    Args:
        labels: integer class of each image, [N].
        fraction: share of the second part, such as 0.5 for search halves or 0.1 for validation.
        seed: of the choice, >= 0.

    Raises:
        ConfigError: a part would be empty.
    """
    total = len(labels)
    if not (math.isfinite(fraction) and 0 < math.floor(fraction * total + 0.5) < total):
        raise ConfigError(
            f"a split of {total} images with fraction {fraction} leaves a part empty; "
            "a fraction between 0 and 1 that gives each part an image is needed"
        )
    classes, sizes = _classes(labels)
    exact = fraction * sizes
    quotas = np.floor(exact).astype(np.int64)
    # Largest remainders get what rounding down left over, so that the total is right too.
    missing = math.floor(fraction * total + 0.5) - int(quotas.sum())
    quotas[np.argsort(quotas - exact, kind="stable")[:missing]] += 1
    second = _choose(classes, sizes, quotas, seed)
    return _indices(~second, labels), _indices(second, labels)


def random_indices(total: int, limit: int | None, seed: int) -> Tensor:
    """Return the indices of `limit` of `total` images in random order; all of them for None, or where fewer exist.

    This is the one draw by which a job takes some images. It comes from torch's CPU generator.
    """
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:limit]


def balanced(labels: Tensor, count: int, seed: int) -> Tensor:
    """Return the ascending indices of at most `count` images, as many of each class as of any other, seeded.

    Where a class is too small to give its share, the others give more; where `count` does not divide, the
    first classes give one more. Raise `ConfigError` when `count` is below the number of classes.
    """
    classes, sizes = _classes(labels)
    if count < len(sizes):
        raise ConfigError(
            f"data.limit: got {count}; at least {len(sizes)} are needed, an image of each class"
        )
    count = min(count, len(labels))
    # Fill all classes to one level, as high as it goes; what is left over goes to the first that have more.
    levels = np.arange(sizes.max() + 1)
    level = int(np.flatnonzero(np.minimum(sizes, levels[:, None]).sum(1) <= count)[-1])
    quotas = np.minimum(sizes, level)
    quotas[np.flatnonzero(sizes > level)[: count - int(quotas.sum())]] += 1
    return _indices(_choose(classes, sizes, quotas, seed), labels)


def _classes(labels: Tensor) -> tuple[Ints, Ints]:
    """Return the class of each image as a position among the classes present, and the size of each class."""
    _, classes, sizes = np.unique(labels.cpu().numpy(), return_inverse=True, return_counts=True)
    return classes.astype(np.int64), sizes.astype(np.int64)


def _choose(classes: Ints, sizes: Ints, quotas: Ints, seed: int) -> npt.NDArray[np.bool_]:
    """Return a mask over the images with `quotas[c]` random images of each class c."""
    if seed < 0:
        raise ConfigError(f"seed {seed}: an integer from 0 on is needed")
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    shuffled = generator.permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    rank = np.arange(len(classes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    mask = np.zeros(len(classes), dtype=np.bool_)
    mask[by_class] = rank < np.repeat(quotas, sizes)
    return mask


def _indices(mask: npt.NDArray[np.bool_], labels: Tensor) -> Tensor:
    return torch.from_numpy(np.flatnonzero(mask).astype(np.int64)).to(labels.device)
