"""Images with their labels, as every reader returns them: uint8 pixels, int64 labels.

Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robust_nas.errors import DataError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

from robust_nas.data.splits import random_indices

UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, bytes that are no UTF-8, line breaks


@dataclass(frozen=True, eq=False)
class Images:
    """`pixels` uint8 [N, C, H, W] and `labels` int64 [N], on one device."""

    pixels: Tensor
    labels: Tensor

    def __repr__(self) -> str:
        count, *shape = self.pixels.shape
        return f"<Images: {count} of {'x'.join(map(str, shape))}, on {self.pixels.device}>"

    def __post_init__(self) -> None:
        pixels, labels = self.pixels, self.labels
        if pixels.dtype != torch.uint8 or pixels.ndim != 4:
            raise DataError(
                f"pixels are {pixels.dtype} of shape {tuple(pixels.shape)}; uint8 [N, C, H, W] is needed"
            )
        if labels.dtype != torch.int64 or labels.shape != pixels.shape[:1]:
            raise DataError(
                f"labels are {labels.dtype} of shape {tuple(labels.shape)}; int64 [{len(pixels)}] is needed"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Images:
        """Return the same images on `device`."""
        return Images(self.pixels.to(device), self.labels.to(device))

    def subset(self, indices: Tensor) -> Images:
        """Return the images at `indices`, in that order; the indices may live on any device."""
        indices = indices.to(self.pixels.device)
        return Images(self.pixels[indices], self.labels[indices])

    def draw(self, count: int, seed: int) -> Images:
        """Return `count` images in the random order of `seed`; all of them where there are fewer."""
        return self.subset(random_indices(len(self), count, seed))

    def float(self, indices: Tensor | None = None) -> Tensor:
        """Return all images, or those at `indices`, as float32 [N, C, H, W] in 0..1."""
        pixels = self.pixels if indices is None else self.pixels[indices.to(self.pixels.device)]
        return pixels.to(torch.float32) / 255


def check_class_name(name: object, source: object) -> None:
    """Raise `DataError`, naming `source`, for a name that tables, JSON, YAML and figures cannot all hold."""
    if not isinstance(name, str) or any(unicodedata.category(letter) in UNPRINTABLE for letter in name):
        raise DataError(
            f"{ascii(str(source))[1:-1]}: class name {ascii(name)[:200]}; UTF-8 text without control characters is "
            "needed"
        )


def check_labels(labels: Tensor, classes: int, source: object) -> None:
    """Raise `DataError`, naming `source` and the first bad label, unless all lie in 0..classes-1."""
    bad = ((labels < 0) | (labels >= classes)).nonzero()
    if len(bad):
        first = int(bad[0])
        raise DataError(
            f"{source}: label {int(labels[first])} of image {first}; labels go from 0 to {classes - 1}"
        )
