"""`robust-nas runs`: what is in a folder of runs; list, show, compare, clean."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robust_nas.cli import common

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robust_nas.workflows.run_comparison import Pair, RunComparison

app = typer.Typer(no_args_is_help=True, help="List, show, compare and remove finished and unfinished runs.")
Root = Annotated[Path, typer.Argument(callback=common.expanded, help="The folder that holds the runs.")]
Verb = Annotated[str | None, typer.Option(callback=common.filled, help="Rows of one verb, such as train.")]
StateOption = Annotated[
    str | None, typer.Option(callback=common.filled, help="done, running, unfinished or broken.")
]
Data = Annotated[
    str | None, typer.Option(callback=common.filled, help="Rows of one dataset, such as digits.")
]


@app.command("list")
def list_(
    root: Root = Path("results"),
    verb: Verb = None,
    state: StateOption = None,
    data: Data = None,
    sort: Annotated[
        str,
        typer.Option(
            callback=common.filled, help="A column, such as seconds; --sort=-robust: largest first."
        ),
    ] = "folder",
    parts: Annotated[
        bool,
        typer.Option("--parts", help="The parts of runs too: models, evaluations, compressions, trials."),
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV on standard output.")] = False,
    json: common.Json = False,
) -> None:
    """List the runs of a folder: verb, state, data, accuracies, verdict, cost. A damaged one is listed as broken.

    Example: [bold]robust-nas runs list results --verb train --sort=-robust[/bold]

    In Python: robust_nas.list_runs("results", verb="train"), robust_nas.runs("results") for a DataFrame
    """
    from robust_nas.workflows.run_table import HEADER, RunRow, as_texts, list_runs

    rows = list_runs(root, verb=verb, state=state, data=data, sort=sort, parts=parts)
    if json:
        common.print_json([row._asdict() for row in rows])
    elif as_csv:
        out = csv.writer(sys.stdout, lineterminator="\n")
        out.writerow(RunRow._fields)
        out.writerows(rows)
    else:
        _print_aligned(HEADER, as_texts(rows, root))
        hint = "" if parts else "; --parts lists the parts of runs too"
        print(f"{len(rows)} run{'' if len(rows) == 1 else 's'} in {root}{hint}")
        for row in rows:
            if row.problem:
                common.say(f"broken: {row.folder}: {row.problem}")


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(callback=common.expanded, help="The folder of a run.")],
    json: common.Json = False,
) -> None:
    """Show one run: its row, how it was started, with what, and its files.

    Example: [bold]robust-nas runs show results/quickstart[/bold]

    In Python: robust_nas.list_runs("results/quickstart")
    """
    from robust_nas.workflows.run_table import list_runs

    row = list_runs(folder)
    if len(row) != 1:
        raise typer.BadParameter(f"{folder}: holds {len(row)} runs; name one of them")
    made = environment_of(folder)
    if json:
        common.print_json({**row[0]._asdict(), "environment": made})
        return
    for key, value in row[0]._asdict().items():
        if value not in (None, ""):
            print(f"{key:<12} {value}")
    for key in ("command", "robust_nas", "code", "device", "threads", "packages", "plugins", "processor"):
        if value := made.get(key):
            words = " ".join(value) if isinstance(value, list) else value
            if isinstance(value, dict):
                words = ", ".join(f"{name} {one}" for name, one in value.items())
            print(f"{key:<12} {words}")
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            print(f"{'file':<12} {path}{'/' if path.is_dir() else ''}")


@app.command()
def compare(
    folders: Annotated[
        list[str], typer.Argument(help="Two or more runs; the others are compared with the first.")
    ],
    json: common.Json = False,
) -> None:
    """Compare runs: where their configs differ, and accuracies paired by image, with intervals and McNemar's test.

    Example: [bold]robust-nas runs compare results/a-model results/b-model[/bold]

    In Python: robust_nas.compare_runs(["results/a-model", "results/b-model"])
    """
    from robust_nas.config import expand_path
    from robust_nas.workflows.run_comparison import compare_runs

    found = compare_runs([expand_path(folder) for folder in folders])
    if json:
        common.print_json(found.to_dict())
    else:
        _show_comparison(found)


@app.command()
def clean(
    root: Root = Path("results"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: common.Json = False,
) -> None:
    """Remove the unfinished runs of a folder, after asking; one with finished work or other files in it stays.

    Example: [bold]robust-nas runs clean results[/bold]

    In Python: robust_nas.workflows.run_table.remove_run(folder)
    """
    from robust_nas.errors import RobustNASError
    from robust_nas.workflows.run_table import list_runs, remove_run

    rows = list_runs(root, state="unfinished")
    for row in rows:
        size = sum(path.lstat().st_size for path in Path(row.folder).rglob("*") if path.is_file())
        common.say(f"{row.folder:<50} {row.verb:<12} {size / 1e6:.1f} MB")
    if rows and not (yes or typer.confirm(f"remove these {len(rows)} unfinished runs?", err=True)):
        rows = []
    removed: list[str] = []
    for row in rows:
        try:
            remove_run(row.folder)
            removed.append(row.folder)
        except RobustNASError as error:
            common.say(f"error: {error}")
    if json:
        common.print_json({"removed": removed})
    else:
        print(f"removed {len(removed)}")
    if len(removed) < len(rows):
        raise typer.Exit(1)


def _print_aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print plain columns: rich takes longer for hundreds of rows than reading the folders does."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    words = sum(1 for name in header if name in ("folder", "verb", "state", "data"))
    for line in lines:
        cells = zip(line, widths, strict=True)
        texts = [
            cell.ljust(width) if number < words else cell.rjust(width)
            for number, (cell, width) in enumerate(cells)
        ]
        print("  ".join(texts).rstrip())


def environment_of(folder: Path) -> dict[str, object]:
    """Return what `environment.json` of a run says; nothing where it is missing or damaged."""
    from robust_nas.errors import RobustNASError
    from robust_nas.records import ENVIRONMENT, read_json

    try:
        return read_json(folder / ENVIRONMENT)
    except RobustNASError:
        return {}


def _show_comparison(found: RunComparison) -> None:
    from robust_nas.workflows.run_table import HEADER, as_texts

    common.table("runs", HEADER, as_texts(found.rows))
    names = [Path(row.folder).name for row in found.rows]
    rows = [[key, *map(_short, values)] for key, values in found.config.items()]
    if rows:
        common.table("where their configs differ", ("key", *names), rows)
    else:
        print("their configs do not differ")
    for pair in found.pairs:
        _show_pair(pair)


def _short(value: object) -> str:
    return "{...}" if isinstance(value, dict) else str(value)[:60]


def _show_pair(pair: Pair) -> None:
    title = f"{Path(pair.run).name} against {Path(pair.first).name}"
    if pair.why_not:
        print(f"{title}: not paired: {pair.why_not}")
        return
    rows = []
    for key, each in pair.contrasts.items():
        low, high = each.interval or (float("nan"), float("nan"))
        p, holm = (("-" if value is None else f"{value:.3g}") for value in (each.p, each.p_holm))
        rows.append(
            [
                key,
                f"{100 * each.effect:+.1f}",
                f"{100 * low:+.1f} .. {100 * high:+.1f}",
                p,
                holm,
                str(each.images),
            ]
        )
    common.table(
        f"{title}: points, on the images that both took",
        ("accuracy", "difference", "95 % interval", "p", "p (Holm)", "images"),
        rows,
    )
    print(
        "the interval covers other images, not other trainings: one model each (robust-nas study covers both)"
    )
    for note in pair.notes:
        print(f"note: {note}")
