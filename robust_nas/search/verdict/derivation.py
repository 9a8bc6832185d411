"""Derive cells from edge weights by DARTS's rule, many at once.

Per node, the `space.kept(node)` edges with the largest weight of their best operation are kept, with that operation.
`none` is chosen only where the space keeps all edges. The same rule as `nets/supernet.py: derive_nodes`, in numpy.

C kinds of cells, E edges of a cell, O operations; leading dimensions are any.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robust_nas.operations import OPERATIONS
from robust_nas.spaces import CellArchitecture, CellSpace


class Cells(NamedTuple):
    """Derived cells: the operation of every edge `[..., C, E]` by number, and whether the edge is kept."""

    operations: NDArray[np.int64]
    kept: NDArray[np.bool_]


def allowed(space: CellSpace) -> NDArray[np.bool_]:
    """Return `[O]`, whether an operation may be chosen."""
    if space.edges_per_node == "all":
        return np.ones(len(space.operations), dtype=bool)
    return np.array([OPERATIONS.get(name).connects for name in space.operations])


def derive(weights: NDArray[Any], space: CellSpace) -> Cells:
    """Return the cells of weights `[..., C, E, O]`, or of anything that has their order."""
    weights = np.where(allowed(space), weights, -np.inf)
    return Cells(weights.argmax(-1), keep(weights.max(-1), space))


def keep(scores: NDArray[Any], space: CellSpace) -> NDArray[np.bool_]:
    """Return whether each edge is kept `[..., E]`, by the scores of the edges; ties go to the earlier source."""
    kept = np.zeros(scores.shape, dtype=bool)
    nodes = np.array([node for node, _ in space.edges])
    for node in range(space.nodes):
        own = np.flatnonzero(nodes == node)
        order = np.argsort(-scores[..., own], axis=-1, kind="stable")[..., : space.kept(node)]
        np.put_along_axis(kept, own[order], True, axis=-1)
    return kept


def cells_of(architecture: CellArchitecture, space: CellSpace) -> Cells:
    """Return the cells of an architecture of the space; operations of edges that it lacks are 0."""
    shape = (len(space.kinds), len(space.edges))
    operations, kept = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
    places = {edge: place for place, edge in enumerate(space.edges)}
    for number, kind in enumerate(space.kinds):
        for node, edges in enumerate(architecture.cell(kind).nodes):
            for edge in edges:
                place = places[node, edge.source]
                operations[number, place] = space.operations.index(edge.operation)
                kept[number, place] = True
    return Cells(operations, kept)


def shared(a: Cells, b: Cells) -> NDArray[np.float64]:
    """Return the share of kept edges `[...]` that both have, with the same operation."""
    both = a.kept & b.kept & (a.operations == b.operations)
    return np.asarray(both.sum((-2, -1)) / a.kept.sum((-2, -1)))
