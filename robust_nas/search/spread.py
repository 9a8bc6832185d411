"""What found architectures say by themselves: cells that collapsed, and what searches of several seeds agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from robust_nas.operations import OPERATIONS
from robust_nas.search.strategy import Criterion
from robust_nas.spaces import CellArchitecture


def skips(architecture: CellArchitecture) -> dict[str, int]:
    """Return the number of skip connections per kind of cell; empty for an architecture without cells."""
    return {
        cell.kind: sum(OPERATIONS.get(name).is_skip for name in cell.operations())
        for cell in getattr(architecture, "genotype", ())
    }


def collapsed(architecture: CellArchitecture) -> list[str]:
    """Return a warning for every cell of which more than half of the operations are skip connections."""
    sizes = {cell.kind: len(cell.operations()) for cell in getattr(architecture, "genotype", ())}
    return [
        f"the {kind} cell collapsed: {count} of its {sizes[kind]} operations are skip connections"
        for kind, count in skips(architecture).items()
        if 2 * count > sizes[kind]
    ]


def spread(
    records: Sequence[Mapping[str, Any]], found: Sequence[CellArchitecture], criterion: Criterion
) -> dict[str, Any]:
    """Return criterion, sizes and skips of every seed, and the share of edges that each pair of seeds has in common."""
    edges = [
        {
            (cell.kind, number, edge)
            for cell in architecture.genotype
            for number, node in enumerate(cell.nodes)
            for edge in node
        }
        for architecture in found
    ]
    keys = ("seed", criterion.key, "params", "macs", "skips", "seconds")
    return {
        "per_seed": [{key: record[key] for key in keys} for record in records],
        "edges_shared_between_pairs": [round(len(a & b) / len(a), 3) for a, b in combinations(edges, 2)],
    }
