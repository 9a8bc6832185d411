"""How far the weight of an edge's operation may have come by chance.

Were a weight a random walk over the epochs, w_b = w_(b-1) + d_b, its distance from the start would have the standard
deviation

    noise = sqrt(sum_b d_b^2)                   d_b: change of the weight in epoch b, E edges, O operations

This is what drawings show next to a weight; the verdict's test of the margins has a null distribution of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from robust_nas.search.strategy import Record

Rows = Sequence[Sequence[float]]  # [E][O]


def edge_noise(records: Sequence[Record]) -> dict[str, list[list[float]]]:
    """Return the noise `[E][O]` of every kind from the records of a search; empty where fewer than two have weights."""
    epochs: list[Mapping[str, Rows]] = [one["edge_weights"] for one in records if "edge_weights" in one]
    if len(epochs) < 2:
        return {}
    return {
        kind: [
            [_walked([epoch[kind][edge][operation] for epoch in epochs]) for operation in range(len(row))]
            for edge, row in enumerate(rows)
        ]
        for kind, rows in epochs[-1].items()
    }


def _walked(weights: Sequence[float]) -> float:
    """Return the root of the sum of squared changes."""
    return math.sqrt(sum((after - before) ** 2 for before, after in pairwise(weights)))
