"""The order in which a job sees its images: a function of seed and epoch, so a position in it is two numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def batches(count: int, batch_size: int, *, seed: int, epoch: int) -> list[Tensor]:
    """Index tensors of one epoch, each of `batch_size`; a ragged rest is left out, unless it is all there is."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order = torch.randperm(count, generator=generator)
    full = count // batch_size
    return list(torch.split(order[: full * batch_size], batch_size)) if full else [order]
