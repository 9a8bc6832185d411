"""NAS-RobBench-201 (Wu et al., ICLR 2024) as CSV: `arch_id`, `arch_str`, and a number in every other column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from robust_nas.search.tables.files import CSVRow, number
from robust_nas.search.tables.nas_bench_201 import ID, STRING, read_cells
from robust_nas.search.tables.reader import TableReader
from robust_nas.search.tables.table import Genotype, Table


class NASRobBench201CSV(TableReader):
    """Any CSV of cells of NAS-Bench-201, some or all of them."""

    form: ClassVar[str] = f"CSV with the columns {ID}, {STRING} and numbers"

    name: Literal["nas-robbench-201-csv"] = "nas-robbench-201-csv"

    @classmethod
    def recognises(cls, head: str) -> bool:
        """Return whether both columns are there, and others than latencies."""
        columns = head.partition("\n")[0].strip().split(",")
        others = [name for name in columns if name not in (ID, STRING)]
        return {ID, STRING} <= set(columns) and not all(name.endswith("_ms") for name in others)

    def read(self, path: Path) -> Table:
        """Return the table of a file."""
        return read_cells(path, _numbers)


def _numbers(row: CSVRow, columns: Sequence[str], genotype: Genotype) -> list[float]:
    return [number(row.cells[name], row.place, name) for name in columns]
