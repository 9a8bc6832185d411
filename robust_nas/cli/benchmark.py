"""`robust-nas benchmark`: what is known in minutes on tables of trained networks. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robust_nas.cli import common

if TYPE_CHECKING:
    from robust_nas.search.sampled.goal import Direction
    from robust_nas.statistics import Estimate
    from robust_nas.workflows.benchmark import ScoreBenchmark
    from robust_nas.workflows.benchmark_strategies import StrategyBenchmark

app = typer.Typer(
    no_args_is_help=True, help="Compare scores and strategies on a table of known results. No torch."
)

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

Column = Annotated[
    str | None,
    typer.Option(
        "--column", callback=common.filled, help="The objective: a column, COLUMN:min if lower is better."
    ),
]
Objectives = Annotated[
    str | None,
    typer.Option(
        "--objectives",
        callback=common.filled,
        help="Two or three in the place of --column: A,B:min,C (max is usual).",
    ),
]
Latency = Annotated[
    Path | None,
    typer.Option(
        "--latency", callback=common.expanded, help="A table of latencies: adds the column latency_ms."
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", callback=common.filled, help="Its device, such as raspi4.")
]
Strategies = Annotated[
    str | None,
    typer.Option(
        "--strategies",
        callback=common.filled,
        help="Names, A,B (default: every sampled one that can run here).",
    ),
]
Evaluations = Annotated[
    str,
    typer.Option("--evaluations", callback=common.filled, help="Numbers to compare at; the last ends a run."),
]
Reference = Annotated[
    str | None,
    typer.Option(
        "--reference",
        callback=common.filled,
        help="Point of the hypervolume, a number an objective (default: the worst of the table).",
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--out", callback=common.expanded, help="A folder for runs, curves and figure; continued if there."
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
        Path | None,
        typer.Option(
            "--out",
            callback=common.expanded,
            help="Write the numbers: a .csv file, or a folder with a report.",
        ),
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


@app.command("strategies")
def strategies(
    table: Table,
    column: Column = None,
    objectives: Objectives = None,
    latency: Latency = None,
    device: Device = None,
    strategies: Strategies = None,
    evaluations: Evaluations = "25,50,100,200,300",
    runs: Annotated[int, typer.Option("--runs", help="Runs of a strategy, seeds 0, 1, ...", min=1)] = 200,
    external_runs: Annotated[
        int, typer.Option("--external-runs", help="At most so many of Optuna's and other packages'.", min=1)
    ] = 20,
    batch: Annotated[int, typer.Option("--batch", help="Proposals made before any is answered.", min=1)] = 1,
    reference: Reference = None,
    reader: Reader = None,
    codes: Codes = None,
    out: Folder = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print tables in Markdown.")] = False,
    quiet: common.Quiet = False,
    json: common.Json = False,
) -> None:
    """Run sampled strategies on a table: best value, or hypervolume, by evaluations, with intervals over runs.

    Example: [bold]robust-nas benchmark strategies --table half.csv.gz --column advtrain/cifar10/val_pgd_8_acc[/bold]

    In Python: robust_nas.workflows.benchmark_strategies.benchmark_strategies(TABLE, {COLUMN: "max"})
    """
    from robust_nas.errors import ConfigError
    from robust_nas.search.tables import load_table, load_with_latency
    from robust_nas.workflows.benchmark_strategies import benchmark_strategies

    if (latency is None) != (device is None):
        raise ConfigError("--latency (a file) and --device (its column) are needed together")
    wanted, point = _goal(column, objectives, reference)
    at = [int(one) for one in _numbers("--evaluations", evaluations, whole=True)]
    options = {} if codes is None else {"codes": str(codes)}
    if latency is not None and device is not None:
        known = load_with_latency(table, latency, device, reader, **options)
    else:
        known = load_table(table, reader, **options)
    with common.progress(quiet) as progress:
        found = benchmark_strategies(
            known,
            wanted,
            None if strategies is None else [one.strip() for one in strategies.split(",")],
            evaluations=at,
            runs=runs,
            external_runs=external_runs,
            batch=batch,
            reference=point,
            out=out,
            progress=progress,
        )
    if json:
        common.print_json(found.to_dict())
        return
    _show_strategies(found, markdown)
    if out is not None:
        common.say(f"wrote {out}")


def _goal(
    column: str | None, objectives: str | None, reference: str | None
) -> tuple[dict[str, Direction], dict[str, float] | None]:
    """Return objectives with directions, and the reference point if given. Raises `ConfigError`."""
    from robust_nas.errors import ConfigError

    if (column is None) == (objectives is None):
        raise ConfigError("--column (one objective) or --objectives (several) is needed, and not both")
    wanted = _objectives("--column" if objectives is None else "--objectives", column or objectives or "")
    if reference is None:
        return wanted, None
    point = _numbers("--reference", reference)
    if len(point) != len(wanted):
        raise ConfigError(
            f"--reference: got {len(point)} numbers; one for each of {', '.join(wanted)} is needed"
        )
    return wanted, dict(zip(wanted, point, strict=True))


def _objectives(key: str, text: str) -> dict[str, Direction]:
    """Return columns and directions of `A,B:min`. Raises `ConfigError` for what is not of this form."""
    from robust_nas.errors import ConfigError

    ways: dict[str, Direction] = {"": "max", "max": "max", "min": "min"}
    found: dict[str, Direction] = {}
    for one in [text] if key == "--column" else text.split(","):
        name, _, way = one.strip().partition(":")
        if not name or way not in ways or name in found:
            raise ConfigError(
                f"{key}: got {one[:100]!r}; COLUMN, COLUMN:max or COLUMN:min is needed, each once"
            )
        found[name] = ways[way]
    if key != "--column" and len(found) < 2:
        raise ConfigError(f"{key}: got one; name it by --column, or give several")
    return found


def _numbers(key: str, text: str, *, whole: bool = False) -> list[float]:
    """Return the numbers of `1,2,3`. Raises `ConfigError` for another text."""
    from robust_nas.errors import ConfigError

    try:
        return [int(one) if whole else float(one) for one in text.split(",")]
    except ValueError:
        kind = "whole numbers" if whole else "numbers"
        raise ConfigError(f"{key}: got {text[:100]!r}; {kind} with commas between them are needed") from None


def _show_strategies(found: StrategyBenchmark, markdown: bool) -> None:
    """Print the measure and the regret of every strategy, and the reasons of those left out."""
    point = ", ".join(f"{name} {value:.4g}" for name, value in found.reference.items())
    above = f" above {point}" if point else ""
    title = (
        f"{found.measure}{above}, mean over runs with 95 % bootstrap intervals; {found.networks} networks of "
        f"{found.table}; the whole table: {found.optimum:.5g}"
    )
    header = ["strategy", *map(str, found.evaluations)]
    rows, regrets = [], []
    for name, one in found.strategies.items():
        at = [one.at(number) for number in found.evaluations]
        cells = [f"{each.mean:.4g} [{each.low:.4g}, {each.high:.4g}]" for each in at]
        rows.append([name, *cells, str(one.runs), f"{one.seconds:.1f}"])
        lost = [f"{each.regret:.2g} [{each.regret_low:.2g}, {each.regret_high:.2g}]" for each in at]
        regrets.append([name, *lost, f"{at[-1].optimal:.0%}"])
    _print(title, [*header, "runs", "CPU s"], rows, markdown)
    _print("regret", [*header, "no regret at the end"], regrets, markdown)
    for name, one in found.strategies.items():
        if one.ended:
            common.say(f"{name}: {one.ended} of {one.runs} runs had nothing new to propose before the end")
    for name, reason in found.left_out.items():
        common.say(f"left out: {name}: {reason}")


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
