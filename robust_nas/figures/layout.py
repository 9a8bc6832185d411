"""Layered drawing of a directed graph, after Sugiyama, Tagawa and Toda (1981).

The caller gives columns, and an edge joins neighbouring columns only (a longer one passes through a
placeholder in every column between). Two steps: the order within columns, by barycentres and then by swaps of
neighbours while the number of crossings falls; then heights, by pulling every item to its neighbours' mean
and projecting each column back onto "in this order, this far apart". So nothing lies on anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations, pairwise

import networkx as nx

Columns = list[list[Hashable]]


def heights(
    graph: nx.DiGraph, columns: Sequence[Sequence[Hashable]], size: Mapping[Hashable, float]
) -> dict[Hashable, float]:
    """Return the y of every item's centre; `size` is the room that each takes vertically, margins included.

    Every edge has a `weight`: how much it wants to be level.
    """
    ordered = _order(graph, [list(column) for column in columns])
    y = {item: float(position) for column in ordered for position, item in enumerate(column)}
    ends = {item: _ends(graph, item) for item in y}
    sizes = {number: [size[item] for item in column] for number, column in enumerate(ordered)}
    before: list[dict[Hashable, float]] = []
    for sweep in range(200):
        for number in range(len(ordered)) if sweep % 2 else reversed(range(len(ordered))):
            wanted = [_pull(ends[item], y[item], y) for item in ordered[number]]
            y.update(zip(ordered[number], _apart(wanted, sizes[number]), strict=True))
        if before == [y, y]:
            break  # neither direction moves anything: all further sweeps give the same
        before = [*before[-1:], dict(y)]
    return y


def _order(graph: nx.DiGraph, columns: Columns) -> Columns:
    best, fewest = columns, _crossings(graph, columns)
    for sweep in range(16):
        forward = sweep % 2 == 0
        # The first column keeps the caller's order: inputs have the same place in every drawing.
        places = range(1, len(columns)) if forward else range(len(columns) - 2, 0, -1)
        columns = [list(column) for column in columns]
        for place in places:
            neighbours = columns[place - 1 if forward else place + 1]
            columns[place].sort(key=_barycentre(graph, neighbours, columns[place]))
        columns = _swapped(graph, columns)
        if (count := _crossings(graph, columns)) < fewest:
            best, fewest = columns, count
    return best


def _barycentre(
    graph: nx.DiGraph, neighbours: Sequence[Hashable], column: Sequence[Hashable]
) -> Callable[[Hashable], float]:
    rank = {item: position / max(1, len(neighbours) - 1) for position, item in enumerate(neighbours)}
    stay = {item: position / max(1, len(column) - 1) for position, item in enumerate(column)}

    def key(item: Hashable) -> float:
        near = [rank[other] for other in nx.all_neighbors(graph, item) if other in rank]
        return sum(near) / len(near) if near else stay[item]

    return key


def _swapped(graph: nx.DiGraph, columns: Columns) -> Columns:
    fewest, improved = _crossings(graph, columns), True
    while improved:
        improved = False
        for column in columns[1:]:
            for i in range(len(column) - 1):
                column[i], column[i + 1] = column[i + 1], column[i]
                if (count := _crossings(graph, columns)) < fewest:
                    fewest, improved = count, True
                else:
                    column[i], column[i + 1] = column[i + 1], column[i]
    return columns


def _crossings(graph: nx.DiGraph, columns: Columns) -> int:
    total = 0
    for left, right in pairwise(columns):
        rank = {item: position for position, item in enumerate(right)}
        ends = [(i, rank[end]) for i, start in enumerate(left) for end in graph.successors(start)]
        total += sum((a - c) * (b - d) < 0 for (a, b), (c, d) in combinations(ends, 2))
    return total


def _ends(graph: nx.DiGraph, item: Hashable) -> list[tuple[Hashable, float]]:
    """Return the neighbours of an item, each with the weight of its edge."""
    before = [(end, weight) for end, _, weight in graph.in_edges(item, data="weight")]
    return before + [(end, weight) for _, end, weight in graph.out_edges(item, data="weight")]


def _pull(ends: Sequence[tuple[Hashable, float]], own: float, y: Mapping[Hashable, float]) -> float:
    total = sum(weight for _, weight in ends)
    return sum(y[end] * weight for end, weight in ends) / total if total else own


def _apart(wanted: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Return the nearest heights (least squares) that keep the order and the room: pool adjacent violators."""
    offsets, total = [], 0.0
    for size in sizes:
        offsets.append(total + size / 2)
        total += size
    blocks: list[tuple[float, int]] = []
    for value, offset in zip(wanted, offsets, strict=True):
        mean, count = value - offset, 1
        while blocks and blocks[-1][0] >= mean:
            before, width = blocks.pop()
            mean, count = (mean * count + before * width) / (count + width), count + width
        blocks.append((mean, count))
    shifts = [mean for mean, count in blocks for _ in range(count)]
    return [shift + offset for shift, offset in zip(shifts, offsets, strict=True)]
