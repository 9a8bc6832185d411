"""Write the report of any folder that a verb wrote: of a run, or of a study or comparison."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from robust_nas.config import expand_path
from robust_nas.run_folder import Progress, silent
from robust_nas.studies.run.folder import is_study
from robust_nas.workflows.report.part import REPORT


def write_report(
    folder: Path | str, *, progress: Progress = silent, allow_code: Iterable[Path | str] = ()
) -> Path:
    """Write `report.html` of a folder, finished or not; return its path.

    A run is shown as its records are. A study is analysed again (`robust_nas.report_study`); its designs and rules by
    `file.py:Class` run only where `allow_code` lists their files. Raises `ConfigError` for another folder, and
    `RunError` where the page cannot be written; a damaged record of a run is named in the page.
    """
    place = expand_path(folder)
    if is_study(place):
        from robust_nas.studies.run.runner import report_study

        report_study(place, progress, allow_code=allow_code)
        return place / REPORT
    from robust_nas.workflows.report.write import write_run_report

    return write_run_report(place)
