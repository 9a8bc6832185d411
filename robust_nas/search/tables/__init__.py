"""Tables of networks whose results are known: one file a reader. `TABLES` knows them by name.

A table is read from a path of the user's; `.gz` files are read as they are. No torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robust_nas.config import expand_path
from robust_nas.errors import ConfigError, DataError
from robust_nas.registry import Registry
from robust_nas.search.tables.files import HEAD, read_text
from robust_nas.search.tables.reader import TableReader
from robust_nas.search.tables.table import Table

LATENCY = "latency_ms"  # the column of a table that is joined with latencies

TABLES = Registry(
    "table",
    TableReader,
    "robust_nas.search.tables",
    {
        "nas-robbench-201": "nas_robbench_201:NASRobBench201",
        "nas-robbench-201-csv": "nas_robbench_201_csv:NASRobBench201CSV",
        "nas-bench-201-latency": "nas_bench_201_latency:NASBench201Latency",
        "tiny-robustbench": "tiny_robustbench:TinyRobustBench",
    },
    group="robust_nas.tables",
)


def load_table(path: str | Path, table: str | None = None, **options: Any) -> Table:
    """Return the table of a file. `table` names the reader; None: the first one that recognises the file.

    `options` are those of the reader. Raises `DataError` for a file that is missing, of another form or damaged, with
    the place in it.
    """
    file = expand_path(path)
    return reader_of(file, table, **options).read(file)


def load_with_latency(
    path: str | Path, latency: str | Path, device: str, table: str | None = None, **options: Any
) -> Table:
    """Return a table with the latencies of one device as its column `latency_ms`, joined by class.

    `device` is a column of the table of latencies, with or without its `_ms`. Errors as `load_table`, and `ConfigError`
    for an unknown device and a table of another space.
    """
    found, times = load_table(path, table, **options), load_table(latency)
    return found.joined(times, {device_column(times, device): LATENCY})


def device_column(times: Table, device: str) -> str:
    """Return the column of a device, named with or without its `_ms`. Raises `ConfigError` for an unknown one."""
    column = device if device in times.columns else f"{device}_ms"
    if column not in times.columns:
        known = ", ".join(name.removesuffix("_ms") for name in times.columns)
        raise ConfigError(f"{times.source}: has no device {device[:100]!r}; it has {known}")
    return column


def reader_of(path: Path, table: str | None = None, **options: Any) -> TableReader:
    """Return the reader of a file, with these options. Errors as `load_table`."""
    if table is not None:
        return TABLES.make(table, **options)
    head = read_text(path, HEAD)
    for name in TABLES.names():
        if TABLES.get(name).recognises(head):
            return TABLES.make(name, **options)
    forms = "; ".join(f"{name}: {TABLES.get(name).form}" for name in TABLES.names())
    raise DataError(f"{path}: is in the form of no known table; forms: {forms}")


__all__ = [
    "LATENCY",
    "TABLES",
    "Table",
    "TableReader",
    "device_column",
    "load_table",
    "load_with_latency",
    "reader_of",
]
