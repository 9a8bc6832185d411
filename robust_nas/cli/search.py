"""`robust-nas search`: find an architecture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from robust_nas.cli import common, controls, engines, search_verdict
from robust_nas.cli.completion import starting, strategies
from robust_nas.cli.dry_run import DryRunOption, show
from robust_nas.cli.report import show_path
from robust_nas.distributed import is_first

if TYPE_CHECKING:
    from robust_nas.search import Criterion
    from robust_nas.workflows.config import RunConfig
    from robust_nas.workflows.search_job import SearchResult


def command(
    recipe: common.Recipe,
    overrides: common.Overrides = None,
    out: Annotated[Path | None, common.out("search")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Repeat with this many seeds and report the spread (default: search.seeds; of a search that is "
            "continued, its own number).",
            min=1,
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            callback=common.filled,
            autocompletion=starting(strategies),
            help="Such as random, nni:darts or file.py:Class instead of the recipe's; keys that it has too stay.",
        ),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"] | None,
        typer.Option(
            help="Evaluate the candidates of a sampled strategy in workers (default: in this process)."
        ),
    ] = None,
    workers: engines.Workers = None,
    ray_address: engines.Address = None,
    cpus: engines.Cpus = None,
    gpus: engines.Gpus = None,
    retries: engines.Retries = None,
    allow_code: common.AllowCode = None,
    resume: common.Resume = False,
    overwrite: common.Overwrite = False,
    print_config: common.PrintConfig = False,
    dry_run: DryRunOption = False,
    live: common.Live = False,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Search an architecture, by default with an adversarially trained supernet.

    NNI's strategies need the extra nni, nsga2 and tpe the extra optuna.

    Example: [bold]robust-nas search quickstart --seeds 3 --out results/three-seeds[/bold]

    By candidates: [bold]robust-nas search quickstart --strategy evolution search.evaluations=100 --workers 2[/bold]

    Continue it: [bold]robust-nas search --resume results/three-seeds --seeds 5[/bold]

    In Python: robust_nas.run_search(robust_nas.load_config("quickstart"), seeds=3)
    """
    from robust_nas.workflows.config import doubts

    config = common.resolve(recipe, overrides, print_config, strategy)
    mode = common.mode_of(resume, overwrite)
    flags = (workers, ray_address, cpus, gpus, retries)
    chosen = (
        engines.engine_of(engine or "local", *flags)
        if engine or any(flag is not None for flag in flags)
        else None
    )
    for doubt in doubts(config):
        common.say(f"warning: {doubt}")
    out = common.resumed(recipe, out, resume)
    if dry_run:
        from robust_nas.workflows.dry_run import dry_run_search

        show(dry_run_search(config, out, seeds=seeds), json)
        return
    from robust_nas.workflows.search import run_search

    with common.progress(quiet, live) as report:
        found = run_search(config, out, mode=mode, seeds=seeds, progress=report, engine=chosen)
    if is_first():
        _report(config, found, json)


def _report(config: RunConfig, found: SearchResult, json: bool) -> None:
    """Print the result of a search, as JSON or for people."""
    from robust_nas.workflows.config import doubts

    for message in found.record["warnings"]:
        if message not in doubts(config):  # which were printed before
            common.say(f"warning: {message}")
    if json:
        compared = {} if found.controls is None else {"controls": found.controls}
        common.print_json({"folder": str(found.folder), **found.record, **compared, "verdict": found.verdict})
    else:
        _show(config.name, found, config.search.criterion)


def _show(name: str, found: SearchResult, criterion: Criterion) -> None:
    """Print what was found, a line a seed, and where it is."""
    record = found.record
    rows = [
        [
            str(one["seed"]),
            f"{one[criterion.key]:.3f}",
            f"{one['params']:,}",
            f"{one['macs'] / 1e6:.2f} M",
            ", ".join(f"{kind} {skips}" for kind, skips in one["skips"].items()),
            f"{one['seconds']:.0f}",
        ]
        for one in record.get("per_seed", [record])
    ]
    common.table(
        f"{name}: search",
        ("seed", criterion.words, "params", "MACs", "skips", "seconds"),
        rows,
    )
    if "per_seed" in record:
        shared = record["edges_shared_between_pairs"]
        print(f"edges shared between two seeds: {100 * sum(shared) / len(shared):.0f} % on average")
    print(f"architecture       {found.folder / 'architecture.yaml'}")
    show_path(found.folder)
    best = found.folder / f"seed-{record['chosen_seed']}" if "per_seed" in record else found.folder
    stopped = record.get("stopped")
    if stopped and "epoch" in stopped:
        print(
            f"stopped            after epoch {stopped['at'] + 1}: {stopped['reason']}; the result is that of epoch "
            f"{stopped['epoch'] + 1}"
        )
    elif stopped:
        print(
            f"taken              {record['taken']} of {record['candidates']} candidates, ended by {stopped['reason']}"
        )
    if found.controls is not None:
        controls.show(found.controls)
    if found.verdict is not None:
        search_verdict.show(found.verdict, found.folder)
    if (cells := best / "figures" / "cells.png").is_file():
        print(f"cells              {cells}")
