"""Benchmarks on tables of trained networks: scores against the truth. Nothing is trained, torch is not needed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robust_nas.environment import environment
from robust_nas.errors import ConfigError, DataError, RunExistsError
from robust_nas.files import is_empty, write_atomic, write_json
from robust_nas.run_folder import ENVIRONMENT, Progress, silent
from robust_nas.search.tables import Table
from robust_nas.search.tables.files import number, read_csv
from robust_nas.search.tables.table import Floats
from robust_nas.spaces import count
from robust_nas.statistics import MEASURES, Agreement, agreements
from robust_nas.workflows.report.at_end import reporting
from robust_nas.workflows.report.part import BENCHMARK

CSV, SCORES = ".csv", "scores.csv"
CONTROL = "params"  # the score that others are compared with
WEIGHT = "weight"  # the column of a file of scores with population weights


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of some rows of a table: `[N]` each, NaN where absent, and their population weights (None: equal)."""

    rows: tuple[int, ...]
    values: Mapping[str, Floats]
    weights: Floats | None = None


@dataclass(frozen=True, eq=False)
class ScoreBenchmark:
    """The agreement of scores with a column of a table, all on one sample."""

    table: str
    column: str
    architectures: int  # of the sample
    left_out: int  # rows without a truth or a score
    agreements: Mapping[str, Agreement]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `--json` prints them."""
        plain = {
            "table": self.table,
            "column": self.column,
            "architectures": self.architectures,
            "left_out": self.left_out,
        }
        return {**plain, "scores": {name: one.to_dict() for name, one in self.agreements.items()}}

    def to_csv(self) -> str:
        """Return a line a score and measure: value, interval, and the difference to params with its interval."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        ends = ("", "_low", "_high")
        writer.writerow(
            ["score", "measure", *(f"{name}{end}" for name in ("value", "ahead") for end in ends)]
        )
        for score, found in self.agreements.items():
            for name in MEASURES:
                numbers = [*found.measures[name], *found.ahead[name]]
                writer.writerow([score, name, *("" if each is None else f"{each:.6g}" for each in numbers)])
        return text.getvalue()

    def write(self, path: Path) -> None:
        """Write `to_csv` as a file whose name ends in `.csv`; else a folder with it, the record and a report."""
        if path.suffix == CSV:
            write_atomic(path, self.to_csv().encode())
            return
        path.mkdir(exist_ok=True)
        with reporting(path):
            write_atomic(path / SCORES, self.to_csv().encode())
            write_json(path / BENCHMARK, self.to_dict())
            write_json(path / ENVIRONMENT, environment())


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise `RunExistsError` where results exist and may not be replaced, or a folder has none of a benchmark.

    Raises `ConfigError` where the folder around them is missing.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: cannot be written: there is no folder {path.parent}")
    if path.exists() and not overwrite:
        raise RunExistsError(f"{path}: exists; --overwrite replaces it")
    if path.suffix == CSV or not path.exists():
        return
    if not path.is_dir() or not (is_empty(path) or (path / SCORES).is_file()):
        raise RunExistsError(
            f"{path}: has no {SCORES} of a benchmark; name a file that ends in {CSV}, or a new folder"
        )


def benchmark_scores(
    table: Table,
    column: str,
    scores: Scores | None = None,
    *,
    lower_is_better: Collection[str] = (),
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Progress = silent,
) -> ScoreBenchmark:
    """Return how well params, MACs and the given scores rank the networks of a table by a column.

    All are compared on the same sample: the rows that have the column and every score. `lower_is_better` names scores
    and the column where it is so. Raises `ConfigError` for unknown names, `StudyError` for too few networks.
    """
    given = scores or Scores(tuple(range(len(table))), {})
    known = {column, *given.values}
    unknown = sorted(set(lower_is_better) - known)
    if unknown:
        raise ConfigError(f"lower is better: got {unknown[0][:100]!r}; allowed: {', '.join(sorted(known))}")
    rows = np.array(given.rows, dtype=int)
    values = {name: -each if name in lower_is_better else each for name, each in given.values.items()}
    truth = table.column(column)[rows] * (-1 if column in lower_is_better else 1)
    kept = np.isfinite([truth, *values.values()]).all(axis=0)
    costs = [count(table.architecture(row)) for row in rows[kept].tolist()]
    controls = {
        "params": np.array([cost.params for cost in costs], dtype=float),
        "macs": np.array([cost.macs for cost in costs], dtype=float),
    }
    taken = sorted(controls.keys() & values.keys())
    if taken:
        raise ConfigError(f"scores: got one called {taken[0]!r}, which is counted here; give it another name")
    compared = {**controls, **{name: each[kept] for name, each in values.items()}}
    found = agreements(
        compared,
        truth[kept],
        CONTROL,
        weights=None if given.weights is None else given.weights[kept],
        draws=draws,
        confidence=confidence,
        rng=np.random.default_rng(seed),
        report=lambda done: progress("scores", done, len(compared)),
    )
    return ScoreBenchmark(table.source, column, int(kept.sum()), int((~kept).sum()), found)


def read_scores(path: Path, table: Table) -> Scores:
    """Return the scores of a CSV file: ids or strings of architectures first, then a column a score.

    An empty cell is absent; a column `weight` holds population weights. Raises `DataError` for an unknown architecture,
    a class that comes twice, and a number that is not finite.
    """
    columns, lines = read_csv(path, ())
    if len(columns) < 2:
        raise DataError(f"{path}: line 1: an architecture and at least one score are needed, got {columns}")
    rows: dict[int, str] = {}
    values: dict[str, list[float]] = {name: [] for name in columns[1:]}
    for line in lines:
        try:
            row = table.row_of(line.cells[columns[0]])
        except (ConfigError, DataError) as error:
            raise DataError(f"{line.place}: {error}") from None
        if row in rows:
            raise DataError(f"{line.place}: the class of {table.ids[row]} comes twice, first at {rows[row]}")
        rows[row] = line.place
        for name, cells in values.items():
            text = line.cells[name].strip()
            cells.append(number(text, line.place, name) if text or name == WEIGHT else math.nan)
    found = {name: np.array(cells) for name, cells in values.items()}
    return Scores(tuple(rows), found, found.pop(WEIGHT, None))
