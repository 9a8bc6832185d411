"""Write the report of a run folder when its job has ended, and, where it is followed, while it works."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from robust_nas.distributed import is_first
from robust_nas.files import is_writable
from robust_nas.workflows.report.live import Report, followed, warn_not_written

_INSIDE: ContextVar[bool] = ContextVar("inside", default=False)  # a job that writes a report at its own end


@contextlib.contextmanager
def within_a_job() -> Iterator[None]:
    """Write no report inside: the jobs there belong to one that writes it, in another process."""
    token = _INSIDE.set(True)
    try:
        yield
    finally:
        _INSIDE.reset(token)


@contextlib.contextmanager
def reporting(folder: Path) -> Iterator[None]:
    """Write the report of a folder when the job inside has ended well; of jobs within a job, the outer one alone does.

    A live report (`live.py`) is also written when it failed: the open page says so, and no longer waits for more.
    A report that cannot be written is a warning (`RecordWarning`): the result does not depend on it.
    """
    if _INSIDE.get():
        yield
        return
    live = followed()
    if live is not None:
        live.start(folder)
    try:
        with within_a_job():
            yield
    except BaseException:
        if live is not None and live.written:
            _write(folder)
        raise
    _write(folder)


@contextlib.contextmanager
def watched(folder: Path, report: Report) -> Iterator[None]:
    """Follow what works inside by a report of its own, where a live one is asked for; at the end it is not live."""
    live = followed()
    if live is None:
        yield
        return
    live.start(folder, report)
    try:
        with within_a_job():
            yield
    finally:
        live.folder = None
        if live.written:
            try:
                report(folder, None)
            except Exception as error:  # of whatever kind: the result is there
                warn_not_written(folder, error)


def _write(folder: Path) -> None:
    if is_first() and is_writable(folder):
        try:
            from robust_nas.workflows.report.write import write_run_report

            write_run_report(folder)
        except Exception as error:  # of whatever kind: the result is there
            warn_not_written(folder, error)
