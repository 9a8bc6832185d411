"""What several searches that differ by their seed alone agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from robust_nas.spaces import CellArchitecture


def spread(records: Sequence[Mapping[str, Any]], found: Sequence[CellArchitecture]) -> dict[str, Any]:
    """Losses, sizes and skips of every seed, and the share of edges that each pair of seeds has in common."""
    edges = [
        {
            (cell.kind, number, edge)
            for cell in architecture.genotype
            for number, node in enumerate(cell.nodes)
            for edge in node
        }
        for architecture in found
    ]
    keys = ("seed", "loss_adversarial", "params", "macs", "skips", "seconds")
    return {
        "per_seed": [{key: record[key] for key in keys} for record in records],
        "edges_shared_between_pairs": [round(len(a & b) / len(a), 3) for a, b in combinations(edges, 2)],
    }
