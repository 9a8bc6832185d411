"""Read the files of tables: texts, plain or gzip, and rows of CSV with their places. Numbers are finite or refused."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from robust_nas.errors import DataError

HEAD = 4096  # characters by which a form is recognised
LARGEST = 256 * 2**20  # bytes of a table, uncompressed


class CSVRow(NamedTuple):
    """A row of a CSV file: its place for messages, and its cells by column."""

    place: str
    cells: Mapping[str, str]


def read_text(path: Path, most: int | None = None) -> str:
    """Return the text of a file, its first `most` bytes where given. Raises `DataError`."""
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if compressed else path.open("rb") as stream:
            data = stream.read(LARGEST + 1 if most is None else most)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > LARGEST:
        raise DataError(f"{path}: is too large for a table; at most {LARGEST:,} bytes are read")
    try:
        return data.decode("utf-8", errors="strict" if most is None else "replace").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8: {error}") from None


def read_csv(path: Path, needed: Sequence[str]) -> tuple[list[str], Iterator[CSVRow]]:
    """Return the columns of a CSV file in their order, and its rows. Raises `DataError` without the `needed` columns.

    Rows with too few or too many cells are refused as they are read.
    """
    lines = csv.reader(io.StringIO(read_text(path)), strict=True)
    columns = next(lines, [])
    missing = [name for name in needed if name not in columns]
    if missing or len(set(columns)) < len(columns):
        wrong = f"has no column {missing[0]!r}" if missing else "has two columns of one name"
        raise DataError(
            f"{path}: line 1: {wrong}; got {', '.join(columns)[:200]!r}, needed: {', '.join(needed)}"
        )
    return columns, _rows(path, columns, lines)


def _rows(path: Path, columns: Sequence[str], lines: Iterator[list[str]]) -> Iterator[CSVRow]:
    number = 1
    try:
        for number, cells in enumerate(lines, 2):
            if len(cells) != len(columns):
                raise DataError(f"{path}: line {number}: has {len(cells)} cells; {len(columns)} are needed")
            yield CSVRow(f"{path}: line {number}", dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise DataError(f"{path}: line {number + 1}: {error}") from None


def number(value: object, place: str, column: str) -> float:
    """Return a finite number of a cell, a text or a number of JSON. Raises `DataError` that names the place."""
    try:
        found = math.nan if isinstance(value, bool) or value is None else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"{place}: {column}: got {str(value)[:100]!r}; a finite number is needed")
    return found
