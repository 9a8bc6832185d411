"""NNI's samples, plain dicts from label to value, and our architectures: each the other's inverse. Needs no NNI.

A cell of a kind has one choice per edge and one per node, shared by all cells of the kind through their labels:

    "<kind>.<node>.<source>"   the operation of the edge (NNI's LayerChoice)
    "<kind>.<node>"            the list of the node's `edges_per_node` sources (NNI's InputChoice), in any order

A sample names the operations of all edges, also of those that its nodes do not choose. They take no part: samples that
differ in them alone are one architecture, and `to_sample` gives the one with the space's first operation there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_nas.errors import ArchitectureError, ConfigError
from robust_nas.spaces import CellArchitecture, CellSpace, Edge, Size

Sample = dict[str, Any]


def edge_label(kind: str, node: int, source: int) -> str:
    """The label of an edge's operation."""
    return f"{kind}.{node}.{source}"


def node_label(kind: str, node: int) -> str:
    """The label of a node's sources."""
    return f"{kind}.{node}"


def from_sample(
    space: CellSpace, sample: Mapping[str, Any], name: str | None = None, size: Size | None = None
) -> CellArchitecture:
    """The architecture of a sample, by default at the space's final size.

    Raises `ArchitectureError` for a sample of another space.
    """
    try:
        genotype = {
            kind: [
                [
                    Edge(sample[edge_label(kind, node, source)], int(source))
                    for source in sample[node_label(kind, node)]
                ]
                for node in range(space.nodes)
            ]
            for kind in space.kinds
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ArchitectureError(f"no sample of the space {space.name}: {error!r}") from None
    try:
        found = space.architecture(name or f"{space.name}-nni", genotype, size)
    except ConfigError as error:
        raise ArchitectureError(f"no sample of the space {space.name}: {error}") from None
    _refuse_foreign(space, found)
    return found


def to_sample(space: CellSpace, architecture: CellArchitecture) -> Sample:
    """The sample of an architecture. Raises `ArchitectureError` where the architecture is not of this space."""
    _refuse_foreign(space, architecture)
    sample: Sample = {}
    for cell in architecture.genotype:
        for number, node in enumerate(cell.nodes):
            operations = {edge.source: edge.operation for edge in node}
            for source in space.sources_of(number):
                sample[edge_label(cell.kind, number, source)] = operations.get(source, space.operations[0])
            sample[node_label(cell.kind, number)] = [edge.source for edge in node]
    return sample


def _refuse_foreign(space: CellSpace, architecture: CellArchitecture) -> None:
    """Raise `ArchitectureError` where an architecture is not of a space."""
    problem = space.mismatch(architecture)
    if problem is not None:
        raise ArchitectureError(f"{architecture.name} is not of the space {space.name}: {problem}")
