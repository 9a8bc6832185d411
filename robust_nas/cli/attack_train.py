"""`robust-nas attack train`: an attack that is learned, against one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from robust_nas.cli import common
from robust_nas.cli.report import show_path


def command(
    model: Annotated[
        Path,
        typer.Argument(callback=common.expanded, help=common.MODEL_HELP),
    ],
    overrides: common.Overrides = None,
    method: Annotated[str, typer.Option(callback=common.filled, help="The attack: ai-gan.")] = "ai-gan",
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            callback=common.expanded,
            help="A YAML file as --print-config prints it, instead of the model's own data and threat model.",
        ),
    ] = None,
    other_data: common.OtherData = False,
    allow_code: common.AllowCode = None,
    out: Annotated[Path | None, common.out("attack train")] = None,
    resume: common.Resume = False,
    overwrite: common.Overwrite = False,
    print_config: common.PrintConfig = False,
    live: common.Live = False,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Train a generator against a model, and measure it next to targeted PGD of the same eps.

    Example: [bold]robust-nas attack train results/quickstart --method ai-gan method.epochs=20[/bold]

    Then: an attack of an evaluation, [bold]{name: ai-gan, generator: results/quickstart/ai-gan}[/bold]

    In Python: robust_nas.train_attack(robust_nas.attack_config(folder), folder)
    """
    from robust_nas.workflows.attack_config import attack_config

    changes = overrides or []
    config = attack_config(config_file or model, method, changes)
    if print_config:
        common.print_and_exit(config)
    mode = common.mode_of(resume, overwrite)
    from robust_nas.workflows.train_attack import train_attack

    with common.progress(quiet, live) as report:
        record = train_attack(
            config,
            model,
            out,
            mode=mode,
            progress=report,
            other_data=common.are_meant(other_data, None, changes),
        )
    if json:
        common.print_json({"folder": str(record.folder), **record})
    else:
        show(record, record.folder)


def show(record: dict[str, Any], folder: Path) -> None:
    """Print success by target class, time and cost of the attack and of PGD, and where the files are."""
    threat, method, pgd = record["threat_model"], record["method"], record["pgd_label"]
    rows = [
        [
            row["class"],
            str(row["pairs"]),
            common.percent(row["attack_success"]),
            common.percent(row["pgd_success"]),
        ]
        for row in (*record["classes"], record["all"])
    ]
    common.table(
        f"{record['name']}: {record['dataset']}, {threat['norm']} eps {threat['eps']:.4g}, seed {record['seed']}; "
        f"answered with the target, {record['images']} test images towards every other class",
        ("target", "pairs", method, f"targeted {pgd}"),
        rows,
    )
    costs = [
        [
            name,
            f"{record['ms_per_image'][key]:.3f}",
            f"{record['macs'][key] / 1e6:.2f} M",
            common.percent(record["fooled"][key]),
        ]
        for name, key in ((method, "attack"), (f"targeted {pgd}", "pgd"))
    ]
    common.table(
        f"an image, batches of {record['batch_size']}, one thread, median of CPU time; fooled: right images that "
        "some target makes wrong",
        ("attack", "ms", "MACs", "fooled"),
        costs,
    )
    print(
        f"{method} is {record['times_faster']:g} times as fast as {pgd}, which takes {record['macs_ratio']:g} times "
        f"its MACs; kept: epoch {record['epoch'] + 1}, {common.percent(record['validation']['success'])} of "
        f"{record['validation']['pairs']} validation images"
    )
    print("note: the success of a trained attack is no robust accuracy; robust-nas evaluate measures that")
    print(f"generator          {folder}")
    print(f"report             {folder / 'report.json'}")
    show_path(folder)
    if (curves := folder / "figures" / "generator.png").is_file():
        print(f"curves             {curves}")
