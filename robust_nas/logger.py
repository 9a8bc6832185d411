"""The protocol of loggers, which pass on what a run records while it works, and `LOGGERS`, which knows them by name.

Every verb that searches or trains appends records to `metrics.jsonl`, and the loggers that its config lists get their
numbers. A new logger is a subclass of `Logger` with its options, and of `RunLog` with its algorithm, both in a file of
its own, and a line in `LOGGERS`. A logger watches: no result depends on it, and one that raises is dropped with a
`LoggerWarning` and a line in the run's `result.json`.

A resumed run passes on all of its records again, from the first, before the new ones. Steps since its last checkpoint
are computed twice, so a log is asked to skip what it has already.
"""

from __future__ import annotations

import contextlib
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from robust_nas.config import Options, to_dict
from robust_nas.errors import ConfigError, LoggerWarning
from robust_nas.files import LOGS, write_atomic
from robust_nas.registry import Method, Registry

STEPS = ("step", "epoch")  # keys of a record that count it; one without them is counted by its place


@dataclass(frozen=True)
class LoggedRun:
    """What a logger knows of its run: the folder, the whole config, and an id that lasts until --overwrite."""

    folder: Path
    config: Mapping[str, Any]
    id: str

    @property
    def name(self) -> str:
        """Return the folder's name, with those around it that a run of several jobs has."""
        return "/".join(self.folder.resolve().parts[-2:])

    @property
    def logs(self) -> Path:
        """Return the folder inside the run's in which loggers may write what they like."""
        return self.folder / LOGS


class RunLog:
    """Base of all loggers in their running form."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log numbers by name, such as `loss` or `entropy/accurate`; `step` counts records, steps or epochs from 0."""
        raise NotImplementedError

    def close(self) -> None:
        """End the log; the run is finished, interrupted, or failed."""


class Logger(Method):
    """Base of all loggers."""

    needs: ClassVar[tuple[str, ...]] = ()  # packages that it imports
    install: ClassVar[str] = ""  # command that adds them

    def start(self, run: LoggedRun) -> RunLog:
        """Return the log of a run; called with its first record."""
        raise NotImplementedError


LOGGERS = Registry(
    "logger",
    Logger,
    "robust_nas.integrations",
    {"tensorboard": "tensorboard_logger:TensorBoard"},
    group="robust_nas.loggers",
)


def refuse_missing(loggers: Sequence[Logger]) -> None:
    """Raise `ConfigError` for a logger whose packages are not installed."""
    for logger in loggers:
        missing = [name for name in logger.needs if find_spec(name) is None]
        if missing:
            remedy = f"; {logger.install}" if logger.install else ""
            raise ConfigError(
                f"loggers: {logger.label} needs {', '.join(missing)}, not installed{remedy}; or leave it out with "
                "loggers=[]"
            )


def scalars_of(record: Mapping[str, Any], place: str = "") -> dict[str, float]:
    """Return the numbers of a record by name, those of mappings in it as `key/inner key`; lists are left out."""
    found: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found |= scalars_of(value, f"{place}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and key not in STEPS:
            found[f"{place}{key}"] = float(value)
    return found


class RunLoggers:
    """The loggers of an opened run, which start with its first record."""

    def __init__(self, folder: Path, recipe: Options | None) -> None:
        self.folder, self.recipe = folder, recipe
        self.dropped: list[str] = []  # a line a logger that raised
        self._waiting: Sequence[Logger] = getattr(recipe, "loggers", ())
        self._logs: list[tuple[Logger, RunLog]] = []
        self._count = 0

    def log(self, record: Mapping[str, Any], so_far: Callable[[], list[dict[str, Any]]]) -> None:
        """Pass a record on; the first time, all of the run `so_far`, of which it is the last."""
        if self._waiting:
            self.start(so_far)
        elif self._logs:
            self._pass_on(record)

    def start(self, so_far: Callable[[], list[dict[str, Any]]]) -> None:
        """Start the loggers that wait, where the run has records."""
        records = so_far() if self._waiting else []
        if not records or self.recipe is None:
            return
        run = LoggedRun(self.folder, to_dict(self.recipe), _id_of(self.folder))
        for logger in self._waiting:
            with self._dropped_if_it_raises(logger):
                self._logs.append((logger, logger.start(run)))
        self._waiting = ()
        for record in records:
            self._pass_on(record)

    def close(self) -> None:
        """Close every log."""
        logs, self._waiting, self._logs = self._logs, (), []
        for logger, log in logs:
            with self._dropped_if_it_raises(logger):
                log.close()

    def _pass_on(self, record: Mapping[str, Any]) -> None:
        step = next((record[key] for key in STEPS if key in record), self._count)
        scalars = scalars_of(record)
        self._count += 1
        for logger, log in list(self._logs):
            with self._dropped_if_it_raises(logger):
                log.log(step, scalars)

    @contextlib.contextmanager
    def _dropped_if_it_raises(self, logger: Logger) -> Iterator[None]:
        """Turn what a logger raises into a warning: a tool that watches must not cost a run."""
        try:
            yield
        except Exception as error:  # whatever a logger, or the tool behind it, raises
            self._logs = [(each, log) for each, log in self._logs if each is not logger]
            reason = f"{logger.label}: {type(error).__name__}: {error}"[:200]
            self.dropped.append(reason)
            warnings.warn(
                f"logger {reason}; the run goes on without it, and --resume logs what it lacks",
                LoggerWarning,
                stacklevel=5,
            )


def _id_of(folder: Path) -> str:
    """Return the id of the run in a folder, which is made the first time."""
    path = folder / LOGS / "id"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, uuid.uuid4().hex.encode())
    return path.read_text(encoding="ascii")
