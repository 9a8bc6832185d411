"""Random draws for a batch that is split over processes: each image gets what it would get in one process.

Noise is drawn for the whole batch everywhere, and the rows at hand are taken. So the generators of all processes stay
alike, and a batch can be split in any way. It costs the draws, which are cheap next to a forward pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Generator, Tensor

CUDA_STATE = 16  # bytes: seed and offset


class BatchGenerator(torch.Generator):
    """A generator that knows the batch its draws are for: `rows` of `whole` images are at hand."""

    whole = 0  # 0: as many as there are
    rows: slice | list[int] = slice(None)

    def restore(self, state: Tensor) -> None:
        """Put a state back; that of another kind of device, which has no meaning here, seeds the draws instead.

        Raise `RuntimeError` for what is no state.
        """
        kinds = {CUDA_STATE, len(torch.Generator().get_state())}
        if len(state) in kinds - {len(self.get_state())}:
            digest = hashlib.sha256(bytes(state.tolist())).digest()
            self.manual_seed(int.from_bytes(digest[:7], "little"))
        else:
            self.set_state(state)


def together(rows: Sequence[slice], wholes: Sequence[int]) -> slice | list[int]:
    """Return the rows at hand of several batches that are drawn for as one; `wholes` are their sizes."""
    starts = accumulate(wholes, initial=0)
    found = [
        start + row for start, own in zip(starts, rows, strict=False) for row in range(own.start, own.stop)
    ]
    return slice(0, len(found)) if len(found) == sum(wholes) else found


def whole_batch(images: Tensor, generator: Generator) -> tuple[Tensor, slice | list[int]]:
    """An unset tensor like `images` `[B, C, H, W]` but of the whole batch, and which of its rows are at hand."""
    if not isinstance(generator, BatchGenerator) or not generator.whole:
        return images, slice(None)
    # Expanded, so that it takes no memory: it only gives shape, dtype and device.
    return images[:1].expand(generator.whole, *images.shape[1:]), generator.rows
