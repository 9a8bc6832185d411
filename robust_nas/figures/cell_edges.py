"""The edges of cells as plain values: their weights in the supernet, and the table behind a drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from robust_nas.figures.style import Table

FINE = 0.015  # noise below which two decimals say too little
Nodes = Sequence[Sequence[tuple[str, int]]]  # (operation, source) of every edge of every node


class Weight(NamedTuple):
    """The weight of an edge in the supernet, 0..1, and how far it may have come by chance; None where not known."""

    value: float
    noise: float | None = None

    def __str__(self) -> str:
        """Return it for a label: `.19 ±.02`, with a third decimal where the noise needs it: `.153 ±.005`."""
        decimals = 3 if self.noise is not None and self.noise < FINE else 2
        noise = "" if self.noise is None else f" ±{_short(self.noise, decimals)}"
        return _short(self.value, decimals) + noise


Weights = Mapping[str, Sequence[Sequence[Weight]]]  # kind -> nodes -> edges, in the order of the cells


def _short(value: float, decimals: int) -> str:
    """Return a number with this number of decimals, without a zero before the point."""
    return f"{value:.{decimals}f}".removeprefix("0")


def edge_table(
    cells: Mapping[str, Nodes],
    outputs: Mapping[str, Sequence[int]],
    inputs: int,
    weights: Weights | None,
    verdict: str,
) -> Table:
    """Return header and rows, one an edge; with columns for weights and verdict where there are some."""
    header = ["cell", "target", "source", "operation"]
    rows: list[list[object]] = []
    for kind, nodes in cells.items():
        for number, node in enumerate(nodes):
            for slot, (operation, source) in enumerate(node):
                weight = [] if weights is None else list(weights[kind][number][slot])
                rows.append([kind, inputs + number, source, operation, *weight])
        absent = [] if weights is None else [None, None]
        rows += [[kind, "output", source, "concat", *absent] for source in outputs[kind]]
    if weights is not None:
        header += ["weight", "noise"]
    if verdict:
        header.append("verdict")
        rows = [[*row, verdict] for row in rows]
    return header, rows
