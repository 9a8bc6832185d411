"""`robust-nas study`: plan, run, follow, report and export studies of width and depth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robust_nas.cli import common, engines

if TYPE_CHECKING:
    from robust_nas.studies.config import StudyConfig

app = typer.Typer(
    help="Study how width and depth change robustness: plan, run, conclude.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Study = Annotated[
    str,
    typer.Argument(
        help="A shipped study (huang-width-last, wrn-r-vs-uniform, robustscaling-rd, zhu-mlp-init) or a YAML file."
    ),
]
Folder = Annotated[Path, typer.Argument(callback=common.expanded, help="The folder of a study.")]
Size = Annotated[
    str | None, typer.Option(callback=common.filled, help="Which of the file's sizes: ci, small, full.")
]


@app.command("list")
def list_studies(json: common.Json = False) -> None:
    """List the shipped studies and their sizes.

    Example: [bold]robust-nas study list[/bold]
    """
    from robust_nas.config import read_yaml
    from robust_nas.studies.config import PRESETS, preset_names

    rows = []
    for name in preset_names():
        path = PRESETS / f"{name}.yaml"
        comment = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        rows.append((name, list(read_yaml(path).get("sizes", {})), comment))
    if json:
        common.print_json([{"study": name, "sizes": sizes, "asks": asks} for name, sizes, asks in rows])
        return
    shown = [[name, ", ".join(sizes), asks] for name, sizes, asks in rows]
    common.table("shipped studies", ("study", "sizes", "what it asks"), shown)


@app.command("plan")
def plan(
    study: Study,
    overrides: common.Overrides = None,
    size: Size = None,
    workers: engines.Workers = None,
    allow_code: common.AllowCode = None,
    calibrate: Annotated[
        bool, typer.Option(help="Time a few steps for the estimate of the study's duration.")
    ] = True,
    print_config: common.PrintConfig = False,
    json: common.Json = False,
) -> None:
    """Show every configuration with both budgets, what the study costs, and what it can show; nothing is written.

    Example: [bold]robust-nas study plan huang-width-last --size ci[/bold]

    In Python: robust_nas.plan_study(robust_nas.load_study("huang-width-last", size="ci"))
    """
    config = _resolve(study, overrides, size, print_config)
    from robust_nas.studies.run.plan import plan_tree
    from robust_nas.studies.run.runner import plan_study, timed

    planned, context = plan_study(config)
    rates = timed(planned, context) if calibrate else None
    tree = plan_tree(planned, rates, workers or 2)
    if json:
        common.print_json(tree)
    else:
        _show_plan(tree)
    planned.refuse_above_guard(tree["seconds"])


@app.command("run")
def run(
    study: Study,
    overrides: common.Overrides = None,
    size: Size = None,
    out: Annotated[Path | None, common.out("study run")] = None,
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
    """Train and attack every configuration with every seed, then conclude.

    With --resume an existing study continues, also with more seeds or configurations: only new trials run.

    Example: [bold]robust-nas study run huang-width-last --size ci[/bold]

    In Python: robust_nas.run_study(robust_nas.load_study("huang-width-last", size="ci"))
    """
    config = _resolve(study, overrides, size, print_config)
    chosen = engines.engine_of(engine, workers, ray_address, cpus, gpus, retries)
    mode = common.mode_of(resume, overwrite)
    from robust_nas.workflows.config import doubts

    for doubt in doubts(config):
        common.say(f"warning: {doubt}")
    from robust_nas.run_folder import read_json
    from robust_nas.studies.run.runner import ANALYSIS, run_study

    with common.progress(quiet, live) as report:
        folder = run_study(config, out, mode=mode, engine=chosen, progress=report)
    tree = read_json(folder / ANALYSIS)
    if json:
        common.print_json({"folder": str(folder), **tree})
    else:
        _show(tree, folder)
    if tree["cost"]["failed"]:
        raise typer.Exit(1)


@app.command("status")
def status(folder: Folder, json: common.Json = False) -> None:
    """Show the state of every trial of a study, also while it runs.

    Example: [bold]robust-nas study status results/huang-width-last-ci[/bold]
    """
    from robust_nas.studies.run.runner import statuses

    rows = statuses(folder)
    if json:
        common.print_json(rows)
        return
    common.table(
        f"{folder}: {sum(row['state'] == 'done' for row in rows)} of {len(rows)} trials done",
        ("configuration", "seed", "state", "seconds", "trial"),
        [
            [
                row["name"],
                str(row["seed"]),
                row["state"],
                "" if row["seconds"] is None else f"{row['seconds']:.1f}",
                row["trial"],
            ]
            for row in rows
        ],
    )
    for row in rows:
        if row["reason"]:
            print(f"{row['state']}: {row['name']}, seed {row['seed']}: {row['reason']}")


@app.command("report")
def report(
    folder: Folder,
    allow_code: common.AllowCode = None,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Analyse the done trials of a study, finished or not, and write its report again.

    Example: [bold]robust-nas study report results/huang-width-last-ci[/bold]

    In Python: robust_nas.report_study(folder)
    """
    from robust_nas.studies.run.runner import report_study

    with common.progress(quiet) as shown:
        tree = report_study(folder, progress=shown)
    if json:
        common.print_json(tree)
    else:
        _show(tree, folder)


@app.command("export")
def export(
    folder: Folder,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv", callback=common.expanded, help="Write the table there instead of standard output."
        ),
    ] = None,
    allow_code: common.AllowCode = None,
    overwrite: common.Overwrite = False,
    json: common.Json = False,
) -> None:
    """Print the tidy table of a study as CSV, or its rows as JSON: one for every configuration and seed.

    Example: [bold]robust-nas study export results/huang-width-last-ci --csv table.csv[/bold]
    """
    from robust_nas.errors import RunExistsError
    from robust_nas.run_folder import write_atomic
    from robust_nas.studies.run.runner import study_table

    text = study_table(folder)
    if csv is not None:
        if csv.exists() and not overwrite:
            raise RunExistsError(f"{csv}: exists already; replace it with --overwrite")
        write_atomic(csv, text.encode())
        common.say(f"table              {csv}")
    if json:
        common.print_json(_rows(text))
    elif csv is None:
        typer.echo(text, nl=False)


def _rows(table: str) -> list[dict[str, Any]]:
    """Return the rows of a CSV table by column: numbers as such, empty cells as None."""
    from csv import DictReader
    from json import loads

    def value(cell: str) -> Any:
        try:
            return loads(cell, parse_constant=str) if cell else None
        except ValueError:
            return cell

    return [{key: value(cell) for key, cell in row.items()} for row in DictReader(table.splitlines())]


def _resolve(study: str, overrides: list[str] | None, size: str | None, print_config: bool) -> StudyConfig:
    """Return the config of a study; with `print_config` it is printed and the program ends."""
    from robust_nas.studies.config import load_study

    config = load_study(study, overrides or (), size=size)
    if print_config:
        common.print_and_exit(config)
    return config


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _show_plan(tree: Mapping[str, Any]) -> None:
    timed = tree["seconds"] is not None
    rows = [
        [
            point["name"] + (f" ({point['arm']})" if point["arm"] else ""),
            f"{point['params']:,}",
            _ratio(point["params_ratio"]),
            f"{point['macs'] / 1e6:,.2f} M",
            _ratio(point["macs_ratio"]),
            _share(point["factors"].get("last_stage_params_share")),
            _number(point["factors"].get("r_d")),
            str(len(point["trials"])),
            f"{point['training_macs']:.2e}",
            f"{point['seconds']:.0f}" if timed else "",
        ]
        for point in tree["points"]
    ]
    header = (
        "configuration", "params", "ratio", "MACs", "ratio", "last stage", "r_D", "trials", "training MACs", "s/trial"
    )  # fmt: skip
    common.table(
        f"{tree['name']}: {len(tree['points'])} configurations, seeds {', '.join(map(str, tree['seeds']))}; "
        f"ratios to {tree['reference']}",
        header,
        rows,
    )
    print(f"images             {tree['train_images']:,} to train on, {tree['test_images']:,} to attack")
    print(
        f"training           {tree['trials']} trials, {tree['training_macs']:.3g} MACs in all"
        f" (guard {tree['guard']['max_training_macs']:.3g}), without validation and evaluation"
    )
    if timed:
        print(
            f"time               about {tree['seconds'] / 60:.0f} min on {tree['workers']} workers"
            f" (guard {tree['guard']['max_hours']:g} h), from a few timed steps"
        )
    effects = tree["smallest_effects"]
    if effects is None:
        print(
            "smallest effect    one seed or one configuration: no effect can be separated from the chance of a seed"
        )
    else:
        shown = ", ".join(f"{100 * e['sd']:.2g} -> {100 * e['effect']:.2g}" for e in effects)
        print(f"smallest effect    in points, with 80 % power, for a seed SD: {shown}")
        print("                   (assumed: half of the answers right, correlated by 0.9 between networks)")
    for warning in tree["warnings"]:
        common.say(f"warning: {warning}")


def _share(value: object) -> str:
    return f"{100 * value:.0f} %" if isinstance(value, float) else ""


def _number(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else ""


def _show(tree: Mapping[str, Any], folder: Path) -> None:
    reference = next(point for point in tree["points"] if point["name"] == tree["reference"])
    rows = []
    for point in tree["points"]:
        metrics = point["metrics"]
        rows.append(
            [
                point["name"],
                f"{point['params']:,}",
                _ratio(point["macs"] / reference["macs"]),
                accuracy(metrics.get("clean")),
                accuracy(metrics.get("robust"), interval=True),
                accuracy(metrics.get("stability")),
                str(len(point["seeds"]))
                + (
                    f" ({point['failed'] + point['diverged']} lost)"
                    if point["failed"] + point["diverged"]
                    else ""
                ),
            ]
        )
    cost = tree["cost"]
    common.table(
        f"{tree['name']}: {cost['done']} of {cost['planned']} trials, {', '.join(tree['attacks'])}, "
        f"{tree['threat_model']['norm']} eps {tree['threat_model']['eps']:.4g}, {tree['data']['images']} images",
        ("configuration", "params", "MACs ratio", "clean", "robust", "stability", "seeds"),
        rows,
    )
    for rule in tree["rules"]:
        print(f"{rule['status']:<18} {rule['rule']}: {rule['reason']}")
    for point in tree["points"]:
        if point["at_chance"]:
            common.say(f"not above chance: {point['name']}: {point['at_chance']}")
    for row in tree["unfinished"]:
        common.say(f"{row['state']}: {row['name']}, seed {row['seed']}: {row['reason']}")
    print(f"report             {folder / 'report.html'}")
    print(f"table              {folder / 'table.csv'}")


def accuracy(metric: Mapping[str, Any] | None, *, interval: bool = False) -> str:
    """Return a mean accuracy in per cent, with its interval where it has one."""
    if metric is None or metric["mean"] is None:
        return "-"
    text = f"{100 * metric['mean']:.1f} %"
    if interval and metric["interval"]:
        low, high = metric["interval"]
        text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return text
