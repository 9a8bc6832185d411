"""`--dry-run` of search, train, compress and run: what would be done, and about how long it would take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from robust_nas.cli import common
from robust_nas.cli.shown_progress import duration

if TYPE_CHECKING:
    from robust_nas.workflows.dry_run import DryRun

DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Measure a few steps, print what would be done and its time, and write nothing."
    ),
]
HEADER = ("job", "images", "batch", "epochs", "steps", "params", "MACs", "time (estimate)")


def show(found: DryRun, json: bool) -> None:
    """Print a dry run as a table and lines, or as JSON."""
    if json:
        common.print_json(found.to_dict())
        return
    rows = [
        [
            job.job,
            *(f"{number:,}" if number is not None else "" for number in (job.images, job.batch_size)),
            *(f"{number:,}" if number is not None else "" for number in (job.epochs, job.steps)),
            f"{job.params:,}" if job.params is not None else "",
            f"{job.macs / 1e6:.2f} M" if job.macs is not None else "",
            duration(job.seconds) if job.seconds is not None else "not estimated",
        ]
        for job in found.jobs
    ]
    common.table(f"{found.verb}: what would be done on {found.device}; nothing was written", HEADER, rows)
    for job in found.jobs:
        network = f"{job.network}; " if job.network else ""
        print(f"{job.job:<24} {network}{job.about}")
    unknown = [job.job for job in found.jobs if job.seconds is None]
    without = f", without {', '.join(unknown)}" if unknown else ""
    print(
        f"{'time (estimate)':<24} {duration(found.seconds)}{without}; on this machine, as busy as it is now"
    )
    print(
        f"{'memory':<24} {found.memory_bytes / 2**30:.2f} GiB at the highest, while these steps were measured"
    )
    print(f"{'would write to':<24} {found.folder}{' (exists already)' if found.exists else ''}")
