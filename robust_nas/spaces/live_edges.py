"""Edges that compute nothing: they leave a state that no input reaches, or enter one that the output does not see.

NAS-Bench-201's cells have such edges: an operation behind a node of `none` alone, or into a node that is not used.
"""

from __future__ import annotations

from robust_nas.operations import OPERATIONS
from robust_nas.spaces.cell import Cell, CellArchitecture


def live(architecture: CellArchitecture) -> CellArchitecture:
    """Return the architecture with every dead edge as the cell's operation that does not connect: the same function.

    A cell without such an operation is returned as it is.
    """
    return architecture.model_copy(update={"genotype": tuple(_live(cell) for cell in architecture.genotype)})


def _live(cell: Cell) -> Cell:
    absent = next((name for name in cell.operations() if not OPERATIONS.get(name).connects), None)
    if absent is None:
        return cell
    reached = set(range(cell.inputs))
    for state, node in enumerate(cell.nodes, cell.inputs):
        if any(source in reached and OPERATIONS.get(name).connects for name, source in node):
            reached.add(state)
    used = set(cell.concat)
    for state, node in reversed(list(enumerate(cell.nodes, cell.inputs))):
        if state in used:
            used |= {source for name, source in node if OPERATIONS.get(name).connects}
    nodes = tuple(
        tuple(
            edge if edge.source in reached and state in used else edge._replace(operation=absent)
            for edge in node
        )
        for state, node in enumerate(cell.nodes, cell.inputs)
    )
    return cell.model_copy(update={"nodes": nodes})
