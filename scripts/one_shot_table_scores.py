"""Scores of a table's rows by the edge weights of a search, what they pick, and the lines of the tables that show it.

Of `evidence_one_shot_tables.py`. N rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robust_nas.search import Table
from robust_nas.spaces import CellArchitecture, CellSpace

Floats = NDArray[np.float64]


def row_scores(table: Table, alphas: Mapping[str, Any]) -> Floats:
    """Return the sum of log edge weights of every row `[N]`; `alphas` is the content of `alphas.json`."""
    return np.array([edge_score(table.architecture(row), table.space, alphas) for row in range(len(table))])


def edge_score(architecture: CellArchitecture, space: CellSpace, alphas: Mapping[str, Any]) -> float:
    """Return the sum of log weights of the edges that an architecture keeps, with those of their sources if any."""
    total = 0.0
    for cell in architecture.genotype:
        rows, sources = alphas["softmax"][cell.kind], alphas.get("sources")
        for number, node in enumerate(cell.nodes):
            for operation, source in node:
                weight = rows[space.edges.index((number, source))][alphas["operations"].index(operation)]
                if sources is not None:
                    weight *= sources[cell.kind][number][list(space.sources_of(number)).index(source)]
                total += math.log(max(weight, 1e-30))
    return total


def picked(table: Table, truth: Floats, rows: Sequence[int], scores: Floats) -> dict[str, Any]:
    """Return the row with the best score: its id, truth, and the share of all rows that are worse."""
    best = rows[int(np.argmax(scores))]
    return {
        "rows": len(rows),
        "best": table.ids[best],
        "truth": float(truth[best]),
        "worse": float(np.mean(truth < truth[best])),
    }


def arg_max(table: Table, column: str, architecture: CellArchitecture) -> dict[str, Any]:
    """Return whether the table has the class of an architecture, and its truth there."""
    found = table.class_of(architecture)
    has = table.has(found, column)
    return {"in_table": has, "truth": table.value(found, column) if has else None}


def line(part: str, one: Mapping[str, Any]) -> str:
    """Return the line of a record in the table of its kind."""
    minutes = f"{one['cpu_seconds'] / 60:.1f}" if "cpu_seconds" in one else "0"
    if "kendall" in one:
        cells = []
        for name in ("params", "alphas", "inherited"):
            found = one["kendall"].get(name)
            known = found is not None and found["value"] is not None
            cells.append(
                f"{found['value']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})" if known else "-"
            )
        return f"| {part} | {one.get('epochs', '-')} | {minutes} | {one['rows']} | {' | '.join(cells)} |"
    found = one.get("arg_max")
    own = (
        "-"
        if found is None
        else "not in the table"
        if found["truth"] is None
        else f"{100 * found['truth']:.1f}"
    )
    return (
        f"| {part} | {one.get('epochs', one.get('paths', '-'))} | {minutes} | {one['rows']} | {100 * one['truth']:.1f} "
        f"| {100 * one['worse']:.0f} | {own} |"
    )


HEADS = {
    "nb201": "| scores by | epochs or paths | CPU minutes | rows | truth of the best row, % | rows that are worse, % "
    "| truth of the arg max, % |\n|---|---|---|---|---|---|---|",
    "tiny": "| strategy | epochs | CPU minutes | rows | params | alphas | inherited weights |\n"
    "|---|---|---|---|---|---|---|",
}
