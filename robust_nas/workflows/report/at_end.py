"""Write the report of a run folder when its job has ended."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from robust_nas.distributed import is_first
from robust_nas.errors import RecordWarning
from robust_nas.files import is_writable
from robust_nas.workflows.report.part import REPORT

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

    A report that cannot be written is a warning (`RecordWarning`): the result does not depend on it.
    """
    if _INSIDE.get():
        yield
        return
    with within_a_job():
        yield
    if is_first() and is_writable(folder):
        try:
            from robust_nas.workflows.report.write import write_run_report

            write_run_report(folder)
        except Exception as error:  # of whatever kind: the result is there
            text = f"{folder / REPORT} is not written: {type(error).__name__}: {str(error)[:200]}"
            warnings.warn(text, RecordWarning, stacklevel=3)
