"""A supernet that computes one operation an edge (single path, Guo et al., ECCV 2020): all architectures share weights.

The supernet of a space is the network of the architecture that has every operation on every edge. A path is the network
of one architecture whose modules are those of the supernet: what trains a path trains its part of the shared weights.

    supernet   cells.i.nodes.n.(e, o)    all edges e and operations o of node n, batch norms without scale and shift
    path       cells.i.nodes.n.(e)       the one operation of the architecture on every edge that it keeps

Edges that cannot matter are left out of a path: those that give zeros, where others are added, and those into nodes
that do not reach the output. The numbers stay the same, the steps are shorter.
"""

from __future__ import annotations

import copy
from typing import TypeVar, cast

from torch import Tensor, nn

from robust_nas.nets.build import build_network
from robust_nas.nets.network import CellNetwork, DropPath, NetworkCell, Node
from robust_nas.operations import OPERATIONS
from robust_nas.spaces import Cell, CellArchitecture, CellSpace, Edge, Size

M = TypeVar("M", bound=nn.Module)


class SinglePathSupernet:
    """All operations on all edges of a space at one size; `path` gives the network of one architecture."""

    def __init__(
        self,
        space: CellSpace,
        size: Size,
        *,
        input_shape: tuple[int, int, int],
        classes: int,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        seed: int = 0,
    ) -> None:
        self.space = space
        every = [
            [Edge(operation, source) for source in space.sources_of(node) for operation in space.operations]
            for node in range(space.nodes)
        ]
        self.whole = space.architecture("supernet", dict.fromkeys(space.kinds, every), size)
        self.network = build_network(
            self.whole, input_shape=input_shape, classes=classes, mean=mean, std=std, affine=False, seed=seed
        )

    def path(self, architecture: CellArchitecture) -> CellNetwork:
        """Return the network of an architecture of the space; its parameters are the supernet's."""
        return selected(self.network, self.whole, architecture)


def selected(network: CellNetwork, whole: CellArchitecture, part: CellArchitecture) -> CellNetwork:
    """Return a network with the modules of `network`, which is that of `whole`, for the genotype of `part` alone.

    `part` has the layout of `whole` and a part of its edges. With `part` equal to `whole`, it is the same network
    without the edges that cannot matter. Parameters, buffers and modes are shared.
    """
    own = _view(network)
    cells = []
    for place, cell in zip(whole.places(), cast("list[NetworkCell]", list(network.cells)), strict=True):
        mine = _view(cell)
        mine.nodes = nn.ModuleList(_nodes(cell, whole.cell(place.kind), part.cell(place.kind)))
        cells.append(mine)
    own.cells = nn.ModuleList(cells)
    return own


class _Unused(nn.Module):
    """The place of a node that nobody reads: it computes nothing."""

    def forward(self, states: list[Tensor], drop_path: DropPath) -> Tensor:
        """Return any earlier state."""
        return states[0]


def _nodes(cell: NetworkCell, whole: Cell, part: Cell) -> list[nn.Module]:
    """Return the nodes of a cell that compute the edges of `part`."""
    nodes: list[nn.Module] = []
    for number, kept in enumerate(used_edges(part)):
        if not kept:
            nodes.append(_Unused())
            continue
        known, node = list(whole.nodes[number]), cast(Node, cell.nodes[number])
        operations = [node[known.index(edge)] for edge in kept]
        nodes.append(Node(operations, [edge.source for edge in kept], part.aggregation))
    return nodes


def used_edges(cell: Cell) -> list[list[Edge]]:
    """Return the edges of every node that matter for the cell's output; none for a node that does not reach it.

    An edge that gives zeros is kept where its node has no other, and where the node takes a mean.
    """
    reached, found = set(cell.concat), list[list[Edge]]()
    for number in range(len(cell.nodes) - 1, -1, -1):
        edges = list(cell.nodes[number])
        if number + cell.inputs not in reached:
            found.append([])
            continue
        if cell.aggregation == "sum":
            edges = [edge for edge in edges if OPERATIONS.get(edge.operation).connects] or edges[:1]
        reached |= {edge.source for edge in edges if OPERATIONS.get(edge.operation).connects}
        found.append(edges)
    return found[::-1]


def _view(module: M) -> M:
    """Return another module with the same parameters, buffers and children, whose children can be replaced."""
    own = copy.copy(module)
    own._modules = dict(module._modules)
    return own
