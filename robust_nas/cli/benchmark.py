"""`robust-nas benchmark`: what is known in minutes on tables of trained networks. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robust_nas.cli import common

if TYPE_CHECKING:
    from robust_nas.statistics import Estimate
    from robust_nas.workflows.benchmark import ScoreBenchmark

app = typer.Typer(no_args_is_help=True, help="Compare scores with the known results of a table. No torch.")

Table = Annotated[
    Path, typer.Option("--table", callback=common.expanded, help="The file of a table, .gz too.")
]
Reader = Annotated[
    str | None,
    typer.Option(
        "--reader", callback=common.filled, help="Its reader (default: the one that recognises it)."
    ),
]
Codes = Annotated[
    Path | None,
    typer.Option(
        "--codes", callback=common.expanded, help="ops.json of NAS-RobBench-201's page (default: next to it)."
    ),
]


@app.command("scores")
def scores(
    table: Table,
    column: Annotated[str, typer.Option("--column", callback=common.filled, help="The column to rank by.")],
    scores: Annotated[
        Path | None,
        typer.Option(
            "--scores",
            callback=common.expanded,
            help="CSV: id or string of an architecture, a column a score.",
        ),
    ] = None,
    lower: Annotated[
        list[str] | None, typer.Option("--lower", help="A score, or the column, that is better lower.")
    ] = None,
    reader: Reader = None,
    codes: Codes = None,
    draws: Annotated[int, typer.Option(help="Bootstrap draws.", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.", min=0)] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", callback=common.expanded, help="Write the numbers as a CSV file.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table in Markdown.")] = False,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Compare scores with the truth: rank correlations and regrets, with params and MACs on the same sample.

    Example: [bold]robust-nas benchmark scores --table half.csv.gz --column advtrain/cifar10/val_pgd_8_acc[/bold]

    In Python: robust_nas.workflows.benchmark.benchmark_scores(robust_nas.search.load_table(PATH), COLUMN)
    """
    from robust_nas.search.tables import load_table
    from robust_nas.workflows.benchmark import benchmark_scores, read_scores, refuse_existing

    if out is not None:
        refuse_existing(out, overwrite)
    known = load_table(table, reader, **({} if codes is None else {"codes": str(codes)}))
    known.column(column)
    given = None if scores is None else read_scores(scores, known)
    with common.progress(quiet) as progress:
        found = benchmark_scores(
            known, column, given, lower_is_better=lower or (), draws=draws, seed=seed, progress=progress
        )
    if out is not None:
        found.write(out)
    if json:
        common.print_json(found.to_dict())
        return
    _show(found, markdown)
    if out is not None:
        common.say(f"wrote {out}")


def _show(found: ScoreBenchmark, markdown: bool) -> None:
    """Print two tables: the measures of every score, and by how much it is above params."""
    from robust_nas.statistics import MEASURES

    left = f", {found.left_out} rows without a value left out" if found.left_out else ""
    title = f"{found.column}: {found.architectures} architectures of {found.table}{left}; 95 % bootstrap intervals"
    names = list(found.agreements)
    measures = [
        [name, *(_cell(name, one.measures[name]) for one in found.agreements.values())] for name in MEASURES
    ]
    _print(title, ["measure", *names], measures, markdown)
    if len(names) > 1:
        rest = list(found.agreements.values())[1:]
        ahead = [[name, *(_cell(name, one.ahead[name], sign="+") for one in rest)] for name in MEASURES]
        _print(f"minus {names[0]}, paired", ["measure", *names[1:]], ahead, markdown)


def _cell(name: str, estimate: Estimate, sign: str = "") -> str:
    shown = f"{sign}.{4 if name.startswith('regret') else 3}f"  # regrets are in the column's unit
    value, *ends = ("-" if each is None else f"{each:{shown}}" for each in estimate)
    return value if estimate.low is None else f"{value} [{', '.join(ends)}]"


def _print(title: str, header: list[str], rows: list[list[str]], markdown: bool) -> None:
    if not markdown:
        common.table(title, header, rows)
        return
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    print(title, *(f"| {' | '.join(line)} |" for line in lines), "", sep="\n")
