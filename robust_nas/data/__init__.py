"""Images in: datasets read from disk, splits, augmentation on the device. Options load without torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from robust_nas.data.options import Augment, DataOptions

if TYPE_CHECKING:
    from robust_nas.data.augmentation import augment
    from robust_nas.data.dataset import Dataset, channel_statistics, load_dataset
    from robust_nas.data.images import Images
    from robust_nas.data.splits import split

__all__ = [
    "Augment",
    "DataOptions",
    "Dataset",
    "Images",
    "augment",
    "channel_statistics",
    "load_dataset",
    "split",
]

# No file here may bear the name of a public function: importing it would put the module in its place.
_HOMES = {
    "Dataset": "dataset",
    "Images": "images",
    "augment": "augmentation",
    "channel_statistics": "dataset",
    "load_dataset": "dataset",
    "split": "splits",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
