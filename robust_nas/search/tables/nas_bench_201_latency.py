"""Latencies of NAS-Bench-201 (HELP, Lee et al., NeurIPS 2021) as CSV: one column a device, `pixel3_ms`.

A network whose cell does not join its output to its input has no latency: devices leave out as much of it as their
compiler sees, so on two of them (Pixel 3, Raspberry Pi 4) some of these 341 strings take some microseconds. All their
values are absent, on every device. Every other value has to be above zero. The rows of one class differ by what a
device runs of dead edges; the class has their mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from robust_nas.errors import DataError
from robust_nas.search.tables.files import CSVRow, number
from robust_nas.search.tables.nas_bench_201 import ID, STRING, read_cells
from robust_nas.search.tables.reader import TableReader
from robust_nas.search.tables.table import Genotype, Table
from robust_nas.spaces.isomorphism import is_connected


class NASBench201Latency(TableReader):
    """Milliseconds of the benchmark's networks on devices."""

    form: ClassVar[str] = f"CSV with the columns {ID}, {STRING} and milliseconds, DEVICE_ms"
    where: ClassVar[str] = "collected from HayeonLee/HELP on GitHub"

    name: Literal["nas-bench-201-latency"] = "nas-bench-201-latency"

    @classmethod
    def recognises(cls, head: str) -> bool:
        """Return whether both columns are there, and only latencies."""
        columns = head.partition("\n")[0].strip().split(",")
        others = [name for name in columns if name not in (ID, STRING)]
        return {ID, STRING} <= set(columns) and bool(others) and all(name.endswith("_ms") for name in others)

    def read(self, path: Path) -> Table:
        """Return the table of a file."""
        return read_cells(path, _milliseconds)


def _milliseconds(row: CSVRow, columns: Sequence[str], genotype: Genotype) -> list[float]:
    values = [number(row.cells[name], row.place, name) for name in columns]
    if not is_connected(genotype["cell"], inputs=1, concat=(3,)):
        return [math.nan] * len(values)
    for name, value in zip(columns, values, strict=True):
        if value <= 0:
            raise DataError(f"{row.place}: {name}: got {value:g} ms; a latency above 0 is needed")
    return values
