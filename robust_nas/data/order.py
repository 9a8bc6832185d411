"""The order in which a job sees its images: a function of seed and epoch, so a position in it is two numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_nas.data.splits import random_indices
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def batches(count: int, batch_size: int, *, seed: int, epoch: int) -> list[Tensor]:
    """Return the batches of one epoch, each of `batch_size` indices; a ragged rest is left out, unless it is alone."""
    order = random_indices(count, None, (seed * 1_000_003 + epoch) % 2**63)
    full = count // batch_size
    return list(torch.split(order[: full * batch_size], batch_size)) if full else [order]
