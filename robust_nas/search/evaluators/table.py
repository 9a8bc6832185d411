"""Score a candidate by the table of a benchmark: nothing is trained.

A candidate is looked up by its isomorphism class, at any size: the value is that of the table's networks. A class
without a row, or without the latency that is asked for, is not known, so it is never proposed.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from robust_nas.config import AbsolutePath, to_dict
from robust_nas.errors import DataError
from robust_nas.search.evaluators.evaluator import Evaluator, Scored
from robust_nas.search.strategy import SearchContext
from robust_nas.search.tables import LATENCY, TABLES, Table, load_table, load_with_latency
from robust_nas.search.tables.reader import TableReader
from robust_nas.spaces import CellArchitecture


class TableValue(Evaluator):
    """A column of a table, negated where a lower value is better."""

    columns: ClassVar[tuple[str, ...]] = ("value", LATENCY)

    name: Literal["table"] = "table"
    file: AbsolutePath  # table of measured architectures
    column: Annotated[str, Field(min_length=1)]  # that scores a candidate
    higher_is_better: bool = True  # whether a larger value is better
    reader: Annotated[TableReader, TABLES.field()] | None = None  # None: the one that recognises the file
    latency: AbsolutePath | None = None  # a table of latencies of the same space, measured of every candidate
    device: str | None = None  # its column

    @model_validator(mode="after")
    def _latency_of_a_device(self) -> Self:
        if (self.latency is None) != (self.device is None):
            raise ValueError("latency (a file) and device (its column) are needed together")
        return self

    @property
    def label(self) -> str:
        """Return the column's name."""
        return f"table {self.column}"

    def table(self) -> Table:
        """Return the table, joined with the latencies; a file that did not change is read once.

        Raises `DataError` and `ConfigError` for files and columns.
        """
        reader: dict[str, Any] = {} if self.reader is None else to_dict(self.reader)
        options = tuple(sorted((key, value) for key, value in reader.items() if key != "name"))
        stamps = tuple(_stamp(path) for path in (self.file, self.latency) if path is not None)
        return _loaded(self.file, reader.get("name"), options, self.latency, self.device, stamps)

    def measures(self, column: str) -> bool:
        """Return whether it returns a value of this column: latencies only where a table of them is given."""
        return super().measures(column) and (column != LATENCY or self.latency is not None)

    def knows(self, candidate: CellArchitecture) -> bool:
        """Return whether the candidate's class has a row with all values. Raises `ArchitectureError` as `class_of`."""
        table = self.table()
        measured = () if self.latency is None else (LATENCY,)
        return table.has(table.class_of(candidate), self.column, *measured)

    def evaluate(self, candidate: CellArchitecture, context: SearchContext) -> Scored:
        """Return the table's value of the candidate. Raises `DataError` for one that it does not know."""
        table = self.table()
        found = table.class_of(candidate)
        value = table.value(found, self.column)
        latency = table.value(found, LATENCY) if self.latency is not None else None
        return Scored(value if self.higher_is_better else -value, {"value": value, LATENCY: latency})


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = Path(path).stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4)
def _loaded(
    file: str,
    reader: str | None,
    options: tuple[tuple[str, Any], ...],
    latency: str | None,
    device: str | None,
    stamps: tuple[tuple[int, int], ...],
) -> Table:
    if latency is None or device is None:
        return load_table(file, reader, **dict(options))
    return load_with_latency(file, latency, device, reader, **dict(options))
