"""A seed for every part of an evaluation, so that each part repeats alone and no two share their draws."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Generator


def seed_of(seed: int, *parts: object) -> int:
    """Return 63 bits that follow from the evaluation's seed and the names of the part."""
    text = "/".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator_of(device: torch.device, seed: int, *parts: object) -> Generator:
    """Return a fresh generator on the device with that seed."""
    return torch.Generator(device).manual_seed(seed_of(seed, *parts))
