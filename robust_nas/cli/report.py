"""`robust-nas report`: one HTML page about what a folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robust_nas.cli import common


def show_path(folder: Path) -> None:
    """Print where the report of a folder is, where it has one."""
    path = folder / "report.html"
    if path.is_file():
        print(f"report             {path}")


def command(
    folder: Annotated[
        Path,
        typer.Argument(callback=common.expanded, help="The folder of a run or a study, finished or not."),
    ],
    allow_code: common.AllowCode = None,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Write `report.html` of a run or a study: one page that opens offline, from the records that are there.

    Example: [bold]robust-nas report results/quickstart[/bold]

    In Python: robust_nas.write_report("results/quickstart")
    """
    from robust_nas.studies.report.of_folder import write_report

    with common.progress(quiet) as shown:
        path = write_report(folder, progress=shown)
    if json:
        common.print_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        print(path)
