"""`robust-nas compare`: training methods under one recipe, one table at equal epochs, one at equal passes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robust_nas.cli import common, engines, study

if TYPE_CHECKING:
    from robust_nas.studies.config import StudyConfig

ARMS = {"equal-epochs": "the same epochs", "equal-passes": "the same passes, epochs rounded, at least 1"}


def command(
    recipe: common.Recipe,
    overrides: common.Overrides = None,
    losses: Annotated[
        str | None,
        typer.Option(
            callback=common.filled,
            help="Methods with commas: losses, steps, attacks for PGD-AT, names of compare.methods; hooks after +.",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings of each method; default 3.")] = None,
    equal_passes: Annotated[
        bool, typer.Option("--equal-passes", help="A second table, at equal forward and backward passes.")
    ] = False,
    architecture: Annotated[
        str | None,
        typer.Option(
            "--architecture",
            "-a",
            callback=common.filled,
            help="The network: a shipped name, wrn-D-k, a YAML file, or a folder that holds one.",
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what it costs and stop.")] = False,
    out: Annotated[Path | None, common.out("compare")] = None,
    engine: engines.EngineName = "local",
    workers: engines.Workers = None,
    ray_address: engines.Address = None,
    cpus: engines.Cpus = None,
    gpus: engines.Gpus = None,
    retries: engines.Retries = None,
    allow_code: common.AllowCode = None,
    resume: common.Resume = False,
    overwrite: common.Overwrite = False,
    print_config: common.PrintConfig = False,
    live: common.Live = False,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Compare training methods: the same data, network and epochs, with paired differences to PGD-AT.

    It is a study: `study status`, `report` and `export` read its folder, and --resume takes more methods and seeds.

    Example: [bold]robust-nas compare quickstart -a wrn-10-1 --losses natural,trades,n-fgsm,pgd-at+awp --seeds 3[/bold]

    In Python: robust_nas.run_study(robust_nas.load_comparison("quickstart", ["trades"], architecture="wrn-10-1"))
    """
    from robust_nas.studies.comparison import load_comparison

    names = [] if losses is None else [name.strip() for name in losses.split(",")]
    config = load_comparison(
        recipe, names, overrides or (), architecture=architecture, seeds=seeds, equal_passes=equal_passes
    )
    if print_config:
        common.print_and_exit(config)
    mode = common.mode_of(resume, overwrite)
    chosen = engines.engine_of(engine, workers, ray_address, cpus, gpus, retries)
    if plan:
        _plan(config, workers or 2, json=json)
        return
    from robust_nas.studies.run.runner import run_study
    from robust_nas.workflows.config import doubts

    for doubt in doubts(config):
        common.say(f"warning: {doubt}")
    with common.progress(quiet, live) as report:
        folder = run_study(config, out, mode=mode, engine=chosen, progress=report)
    _print(folder, json=json)


def _print(folder: Path, *, json: bool) -> None:
    """Print the result of a comparison, and end with 1 where a trial failed."""
    from robust_nas.run_folder import read_json
    from robust_nas.studies.run.runner import ANALYSIS, COMPARISON, REPORT

    tree = read_json(folder / ANALYSIS)
    if json:
        common.print_json({"folder": str(folder), **tree["comparison"], "unfinished": tree["unfinished"]})
    else:
        _show(tree)
        for row in tree["unfinished"]:
            common.say(f"{row['state']}: {row['name']}, seed {row['seed']}: {row['reason']}")
        for what, file in (("figure", "figures/methods.png"), ("table", COMPARISON), ("report", REPORT)):
            print(f"{what:<18} {folder / file}")
    if tree["cost"]["failed"]:
        raise typer.Exit(1)


def _plan(config: StudyConfig, workers: int, *, json: bool) -> None:
    """Print passes and time of every method, and refuse what the guard does not allow; nothing is written."""
    from robust_nas.studies.run.plan import plan_tree
    from robust_nas.studies.run.runner import plan_study, timed

    planned, context = plan_study(config)
    tree = plan_tree(planned, timed(planned, context), workers)
    if json:
        common.print_json(tree)
    else:
        _show_plan(tree)
    planned.refuse_above_guard(tree["seconds"])


def _show_plan(tree: Mapping[str, Any]) -> None:
    base = tree["points"][0]["training_passes"]
    rows = [
        [
            point["name"],
            point["arm"].replace("+", ", "),
            str(point["epochs"]),
            f"{point['passes']:g}",
            f"{point['training_passes']:,}",
            f"{point['training_passes'] / base:.2f}",
            str(len(point["trials"])),
            f"{point['seconds']:.0f}",
        ]
        for point in tree["points"]
    ]
    header = (
        "method",
        "tables",
        "epochs",
        "passes an image",
        "passes a training",
        "ratio",
        "trainings",
        "s each",
    )
    common.table(f"{tree['name']}: {tree['trials']} trainings, ratios to {tree['reference']}", header, rows)
    print("passes             forward-pass equivalents: 2 an attack step, 3 a training step")
    print(f"images             {tree['train_images']:,} to train on, {tree['test_images']:,} to attack")
    print(
        f"time               about {tree['seconds'] / 60:.0f} min on {tree['workers']} workers"
        f" (guard {tree['guard']['max_hours']:g} h), from a few timed steps of {tree['reference']}"
    )
    for warning in tree["warnings"]:
        common.say(f"warning: {warning}")


def _show(tree: Mapping[str, Any]) -> None:
    """Print a table for each arm, and what the figures do not hold."""
    comparison = tree["comparison"]
    threat, images = tree["threat_model"], tree["data"]["images"]
    suite = comparison["suite"] or "worst case"
    header = (
        "method", "epochs", "passes", "clean", comparison["attack"], suite, f"{suite} - {comparison['reference']}",
        "p (Holm)", "verdict", "best > last epoch", "s/epoch", "seeds",
    )  # fmt: skip
    for table in comparison["tables"]:
        common.table(
            f"{tree['name']}, at {ARMS.get(table['arm'], table['arm'])}: {threat['norm']} eps {threat['eps']:.4g}, "
            f"{images} test images of {tree['data']['dataset']}",
            header,
            [_cells(row) for row in table["rows"]],
        )
    print(
        "passes             of the whole training, as a ratio; best > last: robust accuracy on the validation split"
    )
    print(
        f"differences        in points, {100 * comparison['confidence']:g} % intervals over seeds and images,"
    )
    print("                   paired by image, Holm over all of them")
    if len(tree["seeds"]) == 1:
        print("one seed           no interval: nothing is known of how other trainings would differ")
    for point in tree["points"]:
        if point["at_chance"]:
            common.say(f"not above chance: {point['name']}: {point['at_chance']}")
    for warning in comparison["warnings"]:
        common.say(f"warning: {warning}")


def _cells(row: Mapping[str, Any]) -> list[str]:
    from robust_nas.studies.report.comparison import verdicts_text

    metrics, contrast = row["metrics"], row["differences"].get("robust")
    validation, lost = row["validation"], row["failed"] + row["diverged"]
    return [
        row["name"],
        str(row["epochs"]),
        f"{row['passes_ratio']:.2f}",
        *(
            study.accuracy(metrics.get(key), interval=key == "robust")
            for key in ("clean", "attacked", "robust")
        ),
        "" if contrast is None else _difference(contrast),
        "" if contrast is None or contrast["p_holm"] is None else f"{contrast['p_holm']:.3f}",
        verdicts_text(row),
        "" if validation is None else f"{100 * validation['best']:.1f} > {100 * validation['last']:.1f}",
        "" if row["seconds_per_epoch"] is None else f"{row['seconds_per_epoch']:.2g}",
        f"{len(row['seeds'])}" + (f" ({lost} lost)" if lost else ""),
    ]


def _difference(contrast: Mapping[str, Any]) -> str:
    text = f"{100 * contrast['effect']:+.1f}"
    if contrast["interval"] is None:
        return text
    low, high = contrast["interval"]
    return f"{text} [{100 * low:+.1f}, {100 * high:+.1f}]"
