"""What the tables of NAS-Bench-201 share: their space and size, and rows of CSV with ids and strings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from robust_nas.errors import ArchitectureError, DataError
from robust_nas.search.tables.files import CSVRow, read_csv
from robust_nas.search.tables.table import Entry, Genotype, Table
from robust_nas.spaces import Size, load_space
from robust_nas.spaces.nas_bench_201 import code_of, nodes_of

SPACE = "nas-bench-201"
SIZE = Size(cells=15, channels=16)
ID, STRING = "arch_id", "arch_str"
Values = Callable[[CSVRow, Sequence[str], Genotype], list[float]]


def genotype_of(code: str) -> Genotype:
    """Return the genotype of a code. Raises `ArchitectureError`."""
    return {"cell": nodes_of(code)}


def read_cells(path: Path, values: Values) -> Table:
    """Return the table of a CSV file with columns `arch_id`, `arch_str` and numbers, which `values` reads of a row."""
    columns, rows = read_csv(path, [ID, STRING])
    columns = [name for name in columns if name not in (ID, STRING)]
    return Table.of(str(path), load_space(SPACE), SIZE, columns, _entries(columns, rows, values))


def _entries(columns: Sequence[str], rows: Iterator[CSVRow], values: Values) -> Iterator[Entry]:
    for row in rows:
        try:
            genotype = genotype_of(code_of(row.cells[STRING]))
        except ArchitectureError as error:
            raise DataError(f"{row.place}: {STRING}: {error}") from None
        yield Entry(row.cells[ID], genotype, values(row, columns, genotype), row.place)
