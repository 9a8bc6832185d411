"""Tiny-RobustBench (fyqsama/ZCP): adversarially trained networks of the DARTS space, PGD-7, one seed each, as CSV.

    seed,channels,cells,normal,normal_concat,reduce,reduce_concat,clean_best,adversarial_best,...

`seed` is the id of a network; `normal` and `reduce` are JSON lists of (operation, source), two a node; all other
columns are numbers. All networks have one size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from robust_nas.errors import ConfigError, DataError
from robust_nas.search.tables.files import CSVRow, number, read_csv
from robust_nas.search.tables.reader import TableReader
from robust_nas.search.tables.table import Entry, Genotype, Table
from robust_nas.spaces import CellSpace, Edge, Size, load_space

KINDS = ("normal", "reduce")
COLUMNS = ("seed", "channels", "cells", *(f"{kind}{end}" for kind in KINDS for end in ("", "_concat")))


class TinyRobustBench(TableReader):
    """Any CSV of networks of the DARTS space, some or all of them."""

    form: ClassVar[str] = f"CSV with the columns {', '.join(COLUMNS)} and numbers"
    where: ClassVar[str] = "collected from zcp.zip of fyqsama/ZCP on GitHub"

    name: Literal["tiny-robustbench"] = "tiny-robustbench"

    @classmethod
    def recognises(cls, head: str) -> bool:
        """Return whether all columns of a network are there."""
        return set(COLUMNS) <= set(head.partition("\n")[0].strip().split(","))

    def read(self, path: Path) -> Table:
        """Return the table of a file."""
        columns, rows = read_csv(path, COLUMNS)
        columns = [name for name in columns if name not in COLUMNS]
        space, sizes = load_space("darts"), set[Size]()
        entries = list(_entries(columns, rows, space, sizes))
        if len(sizes) > 1:
            listed = "; ".join(sorted(f"{size.cells} cells, {size.channels} channels" for size in sizes))
            raise DataError(f"{path}: has networks of several sizes, one is needed: {listed}")
        return Table.of(str(path), space, next(iter(sizes), space.search), columns, entries)


def _entries(
    columns: Sequence[str], rows: Iterator[CSVRow], space: CellSpace, sizes: set[Size]
) -> Iterator[Entry]:
    for row in rows:
        try:
            size = Size(cells=int(row.cells["cells"]), channels=int(row.cells["channels"]))
        except (ValueError, ConfigError) as error:
            raise DataError(f"{row.place}: cells and channels: {error}") from None
        sizes.add(size)
        genotype = {kind: _nodes(row, kind, space) for kind in KINDS}
        _refuse_foreign(row, space, genotype, size)
        yield Entry(
            row.cells["seed"],
            genotype,
            [number(row.cells[name], row.place, name) for name in columns],
            row.place,
        )


def _nodes(row: CSVRow, kind: str, space: CellSpace) -> list[list[tuple[str, int]]]:
    edges, concat = (_json(row, column) for column in (kind, f"{kind}_concat"))
    whole = isinstance(edges, list) and len(edges) == 2 * space.nodes
    if not whole or not all(_is_edge(edge) for edge in edges):
        raise DataError(
            f"{row.place}: {kind}: got {str(edges)[:100]}; {2 * space.nodes} pairs of operation and source are needed"
        )
    if concat != list(space.output):
        raise DataError(f"{row.place}: {kind}_concat: got {concat}; {list(space.output)} is needed")
    pairs = [(operation, source) for operation, source in edges]
    return [pairs[start : start + 2] for start in range(0, len(pairs), 2)]


def _is_edge(edge: Any) -> bool:
    return isinstance(edge, list) and [type(part) for part in edge] == [str, int]


def _json(row: CSVRow, column: str) -> Any:
    try:
        return json.loads(row.cells[column])
    except (ValueError, RecursionError) as error:
        raise DataError(f"{row.place}: {column}: is no JSON: {error}") from None


def _refuse_foreign(row: CSVRow, space: CellSpace, genotype: Genotype, size: Size) -> None:
    """Raise `DataError` for a genotype that is not of the space."""
    nodes = {kind: [[Edge(*edge) for edge in node] for node in genotype[kind]] for kind in KINDS}
    try:
        wrong = space.mismatch(space.architecture("row", nodes, size))
    except ConfigError as error:
        wrong = str(error)
    if wrong is not None:
        raise DataError(f"{row.place}: is no network of {space.name}: {wrong}")
