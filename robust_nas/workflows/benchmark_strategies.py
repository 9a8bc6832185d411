"""Benchmark sampled strategies on a table: the best value, or the hypervolume, by the number of evaluations.

With one objective the measure of a run is the best value so far; with several the exact hypervolume of what it
evaluated, above a reference point that is the same for all. Regret is the measure of the whole table minus that of the
run. Runs have the seeds 0, 1, ...; intervals are bootstraps over runs. In a folder every strategy that ended is a file
of the rows that its runs evaluated; the same command reads it again. No torch.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robust_nas.config import differences, to_dict
from robust_nas.environment import environment
from robust_nas.errors import CheckpointError, ConfigError, RunExistsError, UnknownMethodError
from robust_nas.figures import draw_figures
from robust_nas.files import is_empty, write_atomic, write_json
from robust_nas.run_folder import ENVIRONMENT, Progress, silent
from robust_nas.search import STRATEGIES, SampledStrategy
from robust_nas.search.evaluators.table import TableValue
from robust_nas.search.sampled.goal import Direction
from robust_nas.search.sampled.on_table import TableRuns
from robust_nas.search.tables import Table
from robust_nas.statistics.components import Floats
from robust_nas.statistics.search_curves import curve
from robust_nas.workflows.report.at_end import reporting
from robust_nas.workflows.report.part import BENCHMARK

EVALUATIONS = (25, 50, 100, 200, 300)
SETTINGS, CURVES, FIGURE = "settings.json", "curves.csv", "strategies"
BEST, VOLUME = "best value", "hypervolume"
_DENSE = 20  # hypervolumes of a curve, in addition to those asked for


class Point(NamedTuple):
    """The mean measure of the runs after a number of evaluations, and the mean regret, each with its interval."""

    evaluations: int
    mean: float
    low: float
    high: float
    regret: float
    regret_low: float
    regret_high: float
    optimal: float  # share of the runs without regret


@dataclass(frozen=True)
class StrategyCurve:
    """The runs of one strategy."""

    runs: int
    seconds: float  # of CPU, all runs
    ended: int  # runs that proposed nothing new before the last evaluation
    points: tuple[Point, ...]

    def at(self, evaluations: int) -> Point:
        """Return the point of a number of evaluations that was asked for."""
        return next(point for point in self.points if point.evaluations == evaluations)


@dataclass(frozen=True)
class StrategyBenchmark:
    """The curves of strategies on one table."""

    table: str
    networks: int  # rows with a value of every objective
    objectives: Mapping[str, Direction]
    optimum: float  # the measure of the whole table
    reference: Mapping[str, float]  # of hypervolumes; empty with one objective
    evaluations: tuple[int, ...]
    batch: int
    strategies: Mapping[str, StrategyCurve]
    left_out: Mapping[str, str] = field(default_factory=dict)  # strategy -> reason

    @property
    def measure(self) -> str:
        """Return what the curves show."""
        return VOLUME if self.reference else BEST

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `--json` prints them."""
        return {
            "table": self.table,
            "networks": self.networks,
            "objectives": dict(self.objectives),
            "measure": self.measure,
            "optimum": self.optimum,
            "reference": dict(self.reference),
            "batch": self.batch,
            "strategies": {
                name: {
                    "runs": one.runs,
                    "cpu_seconds": round(one.seconds, 2),
                    "ended_early": one.ended,
                    "points": [one.at(number)._asdict() for number in self.evaluations],
                }
                for name, one in self.strategies.items()
            },
            "left_out": dict(self.left_out),
        }

    def to_csv(self) -> str:
        """Return a line a strategy and number of evaluations."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["strategy", "runs", *Point._fields])
        for name, one in self.strategies.items():
            for number in self.evaluations:
                at, *numbers = one.at(number)
                writer.writerow([name, one.runs, at, *(f"{each:.6g}" for each in numbers)])
        return text.getvalue()

    def record(self) -> dict[str, Any]:
        """Return what the figure draws: every point of every curve."""
        curves = {
            name: {"runs": one.runs, "points": [point._asdict() for point in one.points]}
            for name, one in self.strategies.items()
        }
        return {**self.to_dict(), "curves": curves}

    def caption(self) -> str:
        """Return the line under the figure."""
        wanted = ", ".join(f"{name} ({way})" for name, way in self.objectives.items())
        point = ", ".join(f"{name} {value:.4g}" for name, value in self.reference.items())
        runs = ", ".join(f"{name} {one.runs}" for name, one in self.strategies.items())
        above = f"; reference point {point}" if point else ""
        return f"{wanted}; {self.networks} networks{above}; batches of {self.batch}; runs: {runs}"


def benchmark_strategies(
    table: Table,
    objectives: Mapping[str, Direction],
    strategies: Sequence[str] | None = None,
    *,
    evaluations: Sequence[int] = EVALUATIONS,
    runs: int = 200,
    external_runs: int = 20,
    batch: int = 1,
    reference: Mapping[str, float] | None = None,
    out: Path | None = None,
    progress: Progress = silent,
) -> StrategyBenchmark:
    """Return the curves of strategies on a table.

    Args:
        table: where networks are looked up.
        objectives: columns and their directions.
        strategies: names; None: every sampled strategy that can run here, with the reasons of those left out.
        evaluations: numbers at which the runs are compared; the largest is the length of a run.
        runs: runs of a strategy.
        external_runs: at most so many for one whose proposals another package makes, such as Optuna.
        batch: proposals that are made before any is answered.
        reference: the point of the hypervolume; None: the worst value of every objective in the table.
        out: a folder for the runs, the curves, the figure and the report; continued where it has some of them.
        progress: is called after every run.

    Raises:
        ConfigError: an absent column, a strategy that cannot run here, more evaluations than networks, other settings
            than those of the folder.
        RunExistsError: the folder has other files.
        CheckpointError: a file of runs is damaged.
    """
    at = tuple(sorted(set(evaluations)))
    space = TableRuns(table, objectives)
    if not at or at[0] < 1 or at[-1] > len(space.rows):
        raise ConfigError(
            f"evaluations: got {', '.join(map(str, at))[:100] or 'none'}; 1..{len(space.rows)} are possible, "
            f"the networks of {table.source} with a value of {', '.join(objectives)}"
        )
    if min(runs, external_runs) < 1:
        raise ConfigError(f"runs: got {runs}, external {external_runs}; at least 1 is needed")
    made, left_out = _made(strategies, at[-1], batch, table, next(iter(objectives)))
    measure = _Measure(space, at, _reference(space, reference))
    if out is not None:
        _open(out, {**_settings(space), "evaluations": at[-1], "batch": batch})
    due = {
        name: _Due(space, name, strategy, runs if strategy.package is None else min(runs, external_runs), out)
        for name, strategy in made.items()
    }
    curves = {name: measure.curve(*one.runs(progress)) for name, one in due.items()}
    found = StrategyBenchmark(
        table.source,
        len(space.rows),
        objectives,
        measure.optimum,
        measure.reference,
        at,
        batch,
        curves,
        left_out,
    )
    if out is not None:
        with reporting(out):
            write_atomic(out / CURVES, found.to_csv().encode())
            write_json(out / BENCHMARK, found.to_dict())
            write_json(out / ENVIRONMENT, environment())
            draw_figures("benchmark", found.record(), out, about=found.caption(), figures=[FIGURE])
    return found


def _made(
    names: Sequence[str] | None, evaluations: int, batch: int, table: Table, column: str
) -> tuple[dict[str, SampledStrategy], dict[str, str]]:
    """Return the strategies by label, and why others are left out. Raises `ConfigError` for a named one that cannot."""
    sampled = [name for name in STRATEGIES.names() if STRATEGIES.get(name).kind == "sampled"]
    evaluator = TableValue(file=table.source, column=column)
    found: dict[str, SampledStrategy] = {}
    left_out: dict[str, str] = {}
    for name in sampled if names is None else names:
        try:
            kind = STRATEGIES.get(name).kind
        except UnknownMethodError:
            kind = "one-shot"
        if kind != "sampled":
            raise ConfigError(f"strategies: got {name[:100]!r}; allowed: {', '.join(sampled)}")
        try:
            strategy = STRATEGIES.make(name, evaluations=evaluations, batch=batch, evaluator=evaluator)
            assert isinstance(strategy, SampledStrategy)  # noqa: S101 - by its kind
            if strategy.package is not None and importlib.util.find_spec(strategy.package) is None:
                raise ConfigError(f"{strategy.package} is not installed, which makes its proposals")
        except ConfigError as error:
            if names is not None:
                raise ConfigError(f"strategies: {name} cannot run on a table: {error}") from None
            left_out[name] = str(error)
            continue
        if strategy.label in found:
            raise ConfigError(f"strategies: {strategy.label} comes twice")
        found[strategy.label] = strategy
    if not found:
        raise ConfigError(f"strategies: got none; allowed: {', '.join(sampled)}")
    return found, left_out


def _reference(space: TableRuns, given: Mapping[str, float] | None) -> dict[str, float]:
    """Return the reference point, empty with one objective. Raises `ConfigError` for one of other objectives."""
    objectives = space.goal.objectives
    if len(objectives) == 1:
        if given:
            raise ConfigError("reference: one objective has no hypervolume; several are needed")
        return {}
    if given is None:
        values = {name: space.table.column(name)[space.rows] for name in objectives}
        return {
            name: float((np.min if way == "max" else np.max)(values[name]))
            for name, way in objectives.items()
        }
    if given.keys() != objectives.keys() or not all(map(math.isfinite, given.values())):
        raise ConfigError(
            f"reference: got {', '.join(f'{name} {value}' for name, value in given.items())[:200]}; "
            f"a finite value of each of {', '.join(objectives)} is needed"
        )
    return dict(given)


class _Measure:
    """The measure of runs and of the whole table: the best value, or a hypervolume. Higher gains are better."""

    def __init__(self, space: TableRuns, at: Sequence[int], reference: Mapping[str, float]) -> None:
        self.space, self.length, self.reference = space, at[-1], reference
        self._sign = -1.0 if not reference and "min" in space.goal.objectives.values() else 1.0
        dense = (
            np.linspace(1, self.length, _DENSE).astype(int).tolist()
            if reference
            else range(1, self.length + 1)
        )
        self._at = sorted({*at, *dense})
        if reference:
            front = space.goal.front(list(space.judged.values()))
            self._most = space.goal.hypervolume(front, reference)[1]
        else:
            self._most = max(self._gain(row) for row in space.rows)
        self.optimum = self._sign * self._most

    def curve(self, runs: Sequence[Sequence[int]], seconds: float) -> StrategyCurve:
        """Return the curve of runs, each the rows that it evaluated. A run that ended early keeps its last value."""
        values = np.array([self._values(rows) for rows in runs])
        points = []
        for point in curve(values, self._at, optimum=self._most):
            ends = [self.optimum - self._sign * each for each in (point.low, point.high)]
            mean = self.optimum - self._sign * point.mean
            regrets = (point.mean, point.low, point.high, point.optimal or 0.0)
            points.append(Point(point.evaluations, mean, min(ends), max(ends), *regrets))
        ended = sum(len(rows) < self.length for rows in runs)
        return StrategyCurve(len(runs), seconds, ended, tuple(points))

    def _values(self, rows: Sequence[int]) -> Floats:
        """Return the measure `[T]` by evaluation, NaN where it was not asked for."""
        values = np.full(self.length, np.nan)
        if self.reference:
            values[np.array(self._at) - 1] = self.space.hypervolumes(rows, self._at, self.reference)
        else:
            values[: len(rows)] = [self._gain(row) for row in rows]
        return values

    def _gain(self, row: int) -> float:
        gains = self.space.judged[row].gains
        assert gains is not None  # noqa: S101 - rows have every value
        return gains[0]


def _settings(space: TableRuns) -> dict[str, Any]:
    """Return what the runs depend on, of the table: its networks and its values, wherever the file lies."""
    digest = hashlib.sha256("\n".join(space.table.classes).encode())
    for name in space.goal.objectives:
        digest.update(space.table.column(name).tobytes())
    return {"table": digest.hexdigest(), "objectives": dict(space.goal.objectives)}


def _open(folder: Path, settings: dict[str, Any]) -> None:
    """Make the folder of a benchmark, or check that it is of the same one."""
    file = folder / SETTINGS
    if not file.exists():
        if folder.exists() and not is_empty(folder):
            raise RunExistsError(f"{folder}: has files, and none of a benchmark; name an empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, settings)
        return
    before = _read(file)
    changed = sorted(differences(before, settings))
    if changed:
        key = changed[0].partition(".")[0]
        raise ConfigError(
            f"{folder}: is a benchmark with other settings: {key} was {str(before.get(key))[:100]}, "
            f"now {str(settings.get(key))[:100]}; name another folder"
        )


class _Due:
    """The runs of one strategy: of its file in the folder, or still to be made."""

    def __init__(
        self, space: TableRuns, name: str, strategy: SampledStrategy, count: int, out: Path | None
    ) -> None:
        """Read the file where there is one. Raise `ConfigError` for other settings, `CheckpointError` for damage."""
        self.space, self.name, self.strategy, self.count = space, name, strategy, count
        self.file = None if out is None else out / f"{name}.json"
        self.options = {key: value for key, value in to_dict(strategy).items() if key != "evaluator"}
        self.kept: tuple[list[list[int]], float] | None = None
        if self.file is not None and self.file.exists():
            self.kept = self._checked(self.file, _read(self.file))

    def runs(self, progress: Progress) -> tuple[list[list[int]], float]:
        """Return the rows that every run evaluated, and the CPU seconds of all; write the file of new ones."""
        if self.kept is not None:
            return self.kept
        began, found = time.process_time(), []
        for seed in range(self.count):
            found.append(self.space.evaluated(self.strategy, seed))
            progress(self.name, seed + 1, self.count)
        seconds = time.process_time() - began
        if self.file is not None:
            tree = {"strategy": self.options, "runs": self.count, "cpu_seconds": seconds, "evaluated": found}
            write_atomic(self.file, json.dumps(tree, allow_nan=False).encode())
        return found, seconds

    def _checked(self, file: Path, kept: Mapping[str, Any]) -> tuple[list[list[int]], float]:
        changed = sorted(differences(kept.get("strategy"), self.options))
        if changed or kept.get("runs") != self.count:
            what = changed[0] if changed else f"runs was {kept.get('runs')}, now {self.count}"
            raise ConfigError(f"{file}: was made with other settings: {what}; name another folder")
        found, seconds = kept.get("evaluated"), kept.get("cpu_seconds")
        sound = isinstance(found, list) and len(found) == self.count and isinstance(seconds, int | float)
        if not sound or not all(self._is_run(rows) for rows in found or ()):
            raise CheckpointError(
                f"{file}: is damaged: {self.count} lists of rows of the table are needed; remove it"
            )
        return list(found or ()), float(seconds or 0.0)

    def _is_run(self, rows: object) -> bool:
        """Return whether it is a list of different rows of the table, no longer than a run."""
        return (
            isinstance(rows, list)
            and 0 < len(rows) <= self.strategy.evaluations
            and all(type(row) is int and row in self.space.judged for row in rows)
            and len(set(rows)) == len(rows)
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise CheckpointError(f"{file}: is damaged: a mapping is needed; remove it")
    return tree
