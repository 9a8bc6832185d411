"""`robust-nas rank`: order architectures before they are trained in full."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robust_nas.cli import common
from robust_nas.cli.report import show_path

if TYPE_CHECKING:
    from robust_nas.workflows.rank import Ranking

MOST_ROWS = 20  # on the terminal
_OVERRIDE = re.compile(r"[a-z_][a-z0-9_]*(\.[A-Za-z0-9_]+)*=")


def command(
    candidates: Annotated[
        list[str],
        typer.Argument(
            metavar="CANDIDATES... [KEY=VALUE]...",
            help="A search space; or a table, with --column; or architectures: names, files, folders, NAS-Bench-201 "
            "strings, texts of cells.",
        ),
    ],
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", callback=common.filled, help="Such as zero-cost (the default)."),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(help="Rank a random part; of a space 100 by default.", min=1)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the sample, the images and the weights.", min=0)
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(callback=common.filled, help="The space of the architectures, a name or a file."),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(callback=common.filled, help="Of a table: what is compared with the scores."),
    ] = None,
    allow_code: common.AllowCode = None,
    out: Annotated[Path | None, common.out("rank")] = None,
    resume: common.Resume = False,
    overwrite: common.Overwrite = False,
    print_config: common.PrintConfig = False,
    live: common.Live = False,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Rank architectures by a score that costs little, with their parameters and MACs next to it.

    Example: [bold]robust-nas rank nas-bench-201 --sample 50 data.name=fashion-mnist[/bold]

    A table of trained networks: [bold]robust-nas rank half.csv.gz --column advtrain/cifar10/val_pgd_8_acc[/bold]

    Continue it: [bold]robust-nas rank --resume results/nas-bench-201-rank[/bold]

    In Python: robust_nas.rank(robust_nas.load_ranking(["nas-bench-201"], sample=50))
    """
    from robust_nas.errors import ConfigError
    from robust_nas.workflows.rank import load_ranking, rank

    overrides = [text for text in candidates if _OVERRIDE.match(text)]
    names = [text for text in candidates if text not in overrides]
    if not names:
        raise ConfigError(
            f"candidates: got only {', '.join(overrides)}; name a search space or architectures to rank"
        )
    config = load_ranking(
        names, method, sample=sample, seed=seed, space=space, column=column, overrides=overrides
    )
    if print_config:
        common.print_and_exit(config)
    mode = common.mode_of(resume, overwrite)
    folder = common.resumed(names[0], out, resume and len(names) == 1)
    with common.progress(quiet, live) as report:
        found = rank(config, folder, mode=mode, progress=report)
    if json:
        common.print_json({"folder": str(found.folder), **found.record})
        return
    _show(config.name, found)


def _show(name: str, found: Ranking) -> None:
    """Print the first candidates, and where the ranking is."""
    rows = found.record["ranking"]
    common.table(
        f"{name}: {len(rows)} candidates by {found.record['method']}",
        [key.replace("_", " ") for key in rows[0]],
        [[_shown(value) for value in row.values()] for row in rows[:MOST_ROWS]],
    )
    print(f"shown              {min(MOST_ROWS, len(rows))} of {len(rows)}")
    if unscored := found.record["unscored"]:
        print(f"without a score    {unscored}, ranked last")
    if agreement := found.record.get("agreement"):
        _print_agreement(agreement)
    print(f"ranking            {found.folder / 'ranking.csv'}")
    print(f"best architecture  {found.folder / 'architecture.yaml'}")
    show_path(found.folder)


def _print_agreement(agreement: dict[str, Any]) -> None:
    """Print how well params, MACs and score order the candidates by the truth, and the score minus params."""
    scores = agreement["scores"]
    columns = [(name, one["measures"]) for name, one in scores.items()]
    columns.append(("score - params", scores["score"]["ahead_of_control"]))
    common.table(
        f"order by {agreement['column']}: {agreement['architectures']} networks, 95 % bootstrap intervals",
        ["measure", *(name for name, _ in columns)],
        [[name, *(_estimate(found[name]) for _, found in columns)] for name in columns[0][1]],
    )


def _estimate(found: dict[str, float | None]) -> str:
    value, *ends = ("none" if each is None else f"{each:.3g}" for each in found.values())
    return value if found["low"] is None else f"{value} [{', '.join(ends)}]"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
