"""The way of the edge weights through a search, read from its records.

    x_b = log w_b - mean over operations of log w_b      after epoch b, for every edge
    d_b = x_b - x_(b-1),  x_0 = 0                         all operations are equal at the start

x is centred, so that weights of edges or nodes, which multiply all operations of an edge, drop out. Epochs in which the
alphas did not move are left out, and neighbours are merged where there are many.

B blocks, C kinds of cells, E edges of a cell, O operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robust_nas.search.strategy import Record
from robust_nas.search.verdict.evidence import SearchEvidence
from robust_nas.search.verdict.thresholds import MOST_BLOCKS, MOVED, SMALLEST_WEIGHT
from robust_nas.spaces import CellSpace

Floats = NDArray[np.float64]


class Trajectory(NamedTuple):
    """Edge weights `[B, C, E, O]` after each epoch, and the steps of an epoch."""

    weights: Floats
    steps: int

    @property
    def increments(self) -> Floats:
        """Return d `[B, C, E, O]` of every epoch."""
        logits = np.log(np.maximum(self.weights, SMALLEST_WEIGHT))
        logits -= logits.mean(-1)[..., None]
        return np.diff(logits, axis=0, prepend=0.0)

    @property
    def blocks(self) -> tuple[Floats, int]:
        """Return the increments `[B', C, E, O]` of the blocks in which the alphas moved, and the steps of a block."""
        increments = self.increments
        size = np.sqrt((increments**2).mean((1, 2, 3)))
        moved = increments[size > MOVED * size.max()]
        merged = -(-len(moved) // MOST_BLOCKS) if len(moved) else 1
        starts = np.arange(0, len(moved), merged)
        if (
            len(starts) > 1 and len(moved) - starts[-1] < merged
        ):  # a short block has less to say: it joins the last
            starts = starts[:-1]
        blocks = np.add.reduceat(moved, starts, axis=0) if len(starts) else moved
        return blocks, merged * self.steps


def trajectory(records: Sequence[Record], space: CellSpace) -> Trajectory | None:
    """Return what a search recorded of its edge weights; None where a record of an epoch's end has none."""
    ends = {record["epoch"]: record for record in records if "epoch" in record and "step" in record}
    found = [_weights(record, space) for _, record in sorted(ends.items())]
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return None
    return Trajectory(np.stack(known), max(1, len(records) // len(ends)))


def _weights(record: Record, space: CellSpace) -> Floats | None:
    """Return the edge weights `[C, E, O]` of a record; None where it has none of this space."""
    own: Any = record.get("edge_weights") or {}
    shape = (len(space.edges), len(space.operations))
    rows = [np.array(own.get(kind, ()), dtype=np.float64) for kind in space.kinds]
    fits = all(row.shape == shape and np.isfinite(row).all() for row in rows)
    return np.stack(rows) if fits else None


def momentum_of(evidence: SearchEvidence) -> float:
    """Return the momentum of the optimiser of the alphas, 0 where a strategy has none."""
    alphas: Any = getattr(evidence.strategy, "alphas", None)
    betas = getattr(alphas, "betas", None)
    return float(betas[0]) if betas else 0.0
