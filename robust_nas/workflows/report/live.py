"""Rewrite the report of a run while it works, so that an open page follows it.

The report is written between two steps of the run, in its process: at the first call of progress, then at most every
`seconds`, and not before `SHARE` times the time that the last report took. It costs at most a fiftieth of the run.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from robust_nas.distributed import is_first
from robust_nas.errors import RecordWarning
from robust_nas.run_folder import Progress
from robust_nas.stages import Stage, announce
from robust_nas.workflows.report.part import REPORT, Live

SECONDS = 30.0  # between two reports
SHARE = 50  # times that a report took, before the next one
_FOLLOWED: ContextVar[LiveReport | None] = ContextVar("followed", default=None)


Report: TypeAlias = Callable[[Path, Live | None], Any]


class LiveReport:
    """A progress that passes every call on, and rewrites the report of the folder in which a job works.

    `clock` returns seconds. A report that cannot be written is a `RecordWarning`, once.
    """

    def __init__(
        self,
        progress: Progress,
        seconds: float = SECONDS,
        say: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the progress to pass on to; `say` gets a line with the path of the report."""
        self.progress, self.seconds, self.say, self.clock = progress, seconds, say, clock
        self.folder: Path | None = None
        self.report: Report = _write_run
        self.jobs: dict[str, str] = {}  # how far each is
        self.stages: list[str] = []
        self.written = False  # a page of this folder
        self._due, self._warned = clock(), False

    def plan(self, stages: Sequence[Stage]) -> None:
        """Take the jobs that follow; later announcements, of jobs inside, are not the whole."""
        self.stages = self.stages or [stage.job for stage in stages]
        announce(self.progress, stages)

    def __call__(self, job: str, done: int, total: int, note: str = "") -> None:
        """Pass a call on, and write the report where it is due."""
        self.progress(job, done, total, note)
        self.jobs[job] = f"{done} of {total}{f', {note}' if note else ''}"
        if self.folder is not None and self.clock() >= self._due:
            self.write()

    def start(self, folder: Path, report: Report | None = None) -> None:
        """Follow the job of a folder, which may not be there yet; `report` writes its page (default: of a run)."""
        self.folder, self.report = folder, report or _write_run
        self.say(f"live report: {folder / REPORT}; a page that is open follows it")

    def write(self) -> None:
        """Write the report now, where the folder is there."""
        folder = self.folder
        if folder is None or not folder.is_dir():
            return
        began = self.clock()
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        rows = list(self.jobs.items()) + [(job, "") for job in self.stages if not self._has_begun(job)]
        try:
            self.report(folder, Live(self.seconds, now, rows))
            self.written = True
        except Exception as error:  # of whatever kind: the run goes on
            if not self._warned:
                warn_not_written(folder, error)
            self._warned = True
        ended = self.clock()
        self._due = ended + max(self.seconds, SHARE * (ended - began))

    def _has_begun(self, job: str) -> bool:
        return any(Stage(job).is_of(each) for each in self.jobs)


def _write_run(folder: Path, live: Live | None) -> None:
    from robust_nas.workflows.report.write import write_run_report

    write_run_report(folder, live)


def warn_not_written(folder: Path, error: Exception) -> None:
    """Warn that the report of a folder is not written."""
    text = f"{folder / REPORT} is not written: {type(error).__name__}: {str(error)[:200]}"
    warnings.warn(text, RecordWarning, stacklevel=4)


@contextlib.contextmanager
def following(
    progress: Progress, seconds: float = SECONDS, say: Callable[[str], None] = lambda text: None
) -> Iterator[Progress]:
    """Yield a progress that rewrites the report of the job inside, at most every so many seconds.

    Of several ranks the first one writes.
    """
    if not is_first():
        yield progress
        return
    live = LiveReport(progress, seconds, say)
    token = _FOLLOWED.set(live)
    try:
        yield live
    finally:
        _FOLLOWED.reset(token)


def followed() -> LiveReport | None:
    """Return the live report of the call, or None where nobody asked for one."""
    return _FOLLOWED.get()
