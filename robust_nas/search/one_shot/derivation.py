"""From the scores of operations to an architecture, with a limit on skip connections (P-DARTS, Chen et al., ICCV 2019).

    derive; while a cell that is no reduction cell has more than M skip connections:
        forbid the skip connection with the lowest score among those of the cell, on its edge; derive again

Scores are edge weights, or what the supernet loses without an operation (`perturbation.py`). E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from robust_nas.errors import ConfigError
from robust_nas.lazy import torch
from robust_nas.operations import OPERATIONS
from robust_nas.spaces import CellArchitecture, CellSpace, Edge

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.search.one_shot.steps import OneShotSearch

Nodes = list[list[Edge]]


class Scores(NamedTuple):
    """Scores of one kind of cell: operations `[E, O]`, edges `[E]`; None: an edge has that of its best operation."""

    operations: Tensor
    edges: Tensor | None = None


def normal_kinds(space: CellSpace) -> list[str]:
    """Return the kinds of cells that do not reduce the resolution."""
    return list(dict.fromkeys(space.layout.stages))


def derived(
    search: OneShotSearch, scores: Mapping[str, Scores], name: str, max_skips: int | None
) -> CellArchitecture:
    """Return the architecture of these scores per kind, at the space's final size, by DARTS's rule."""
    space, supernet = search.space, _supernet(search)
    limited = normal_kinds(space) if max_skips is not None else []
    genotype = {
        kind: limit_skips(space, own.operations.cpu(), derive_by(supernet, own), max_skips)
        if kind in limited
        else supernet.derive_nodes(*own)
        for kind, own in scores.items()
    }
    return space.architecture(name, genotype)


def _supernet(search: OneShotSearch) -> Any:
    return search.supernet


def derive_by(supernet: Any, scores: Scores) -> Callable[[Tensor], Nodes]:
    """Return what derives the nodes of a cell from scores `[E, O]`, with the same scores of edges."""

    def derive(operations: Tensor) -> Nodes:
        nodes: Nodes = supernet.derive_nodes(operations, scores.edges)
        return nodes

    return derive


def limit_skips(
    space: CellSpace, operations: Tensor, derive: Callable[[Tensor], Nodes], most: int | None
) -> Nodes:
    """Return the nodes that `derive` gives for scores `[E, O]`, with at most `most` skip connections."""
    operations = operations.clone()
    skips = [number for number, name in enumerate(space.operations) if OPERATIONS.get(name).is_skip]
    while True:
        nodes = derive(operations)
        chosen = [
            (float(operations[edge, skip]), edge, skip)
            for edge, (node, source) in enumerate(space.edges)
            for skip in skips
            if Edge(space.operations[skip], source) in nodes[node]
        ]
        if most is None or len(chosen) <= most:
            return nodes
        _, edge, skip = min(chosen)
        operations[edge, skip] = -torch.inf


def refuse_space(space: CellSpace, key: str, value: int) -> None:
    """Raise `ConfigError` for a limit on skip connections in a space of nothing else, or a stop where there are none.

    A limit where there are none is kept by itself: a recipe may have it for any space.
    """
    found = [OPERATIONS.get(name) for name in space.operations]
    if not any(operation.is_skip for operation in found):
        if key == "max_skips":
            return
        raise ConfigError(
            f"search.{key}: got {value}; the space {space.name!r} has no skip connection; leave it out"
        )
    usable = [operation for operation in found if operation.connects or space.edges_per_node == "all"]
    if all(operation.is_skip for operation in usable):
        raise ConfigError(
            f"search.{key}: got {value}; edges of the space {space.name!r} can be skip connections alone; leave it out"
        )
