"""`robust-nas defend`: a model folder with a defence around its network, calibrated on validation images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from robust_nas.cli import common
from robust_nas.cli.completion import defences, starting
from robust_nas.cli.export import Module
from robust_nas.cli.report import show_path

Values = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Options of the defence, such as sigma=1; data.*, images, seed, device and threads are those of the job.",
    ),
]


def command(
    model: Annotated[
        Path,
        typer.Argument(callback=common.expanded, help=common.MODEL_HELP),
    ],
    overrides: Values = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--with",
            callback=common.filled,
            autocompletion=starting(defences),
            help="The defence: a name, or file.py:Class of your own.",
        ),
    ] = None,
    module: Module = None,
    other_data: common.OtherData = False,
    allow_code: common.AllowCode = None,
    out: Annotated[Path | None, common.out("defend")] = None,
    resume: common.Resume = False,
    overwrite: common.Overwrite = False,
    print_config: common.PrintConfig = False,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Put a defence around a model. Thresholds come from validation images; test images are never read by it.

    Example: [bold]robust-nas defend results/quickstart --with jpeg quality=50[/bold]

    Then: [bold]robust-nas evaluate results/quickstart/defended[/bold]

    In Python: robust_nas.defend(robust_nas.defence_config(folder, "jpeg"), folder)
    """
    from robust_nas.defences import DEFENCES
    from robust_nas.workflows.defence_config import defence_config

    if method is None:
        raise typer.BadParameter(f"name a defence with --with; there are {', '.join(DEFENCES.names())}")
    changes = overrides or []
    config = defence_config(model, method, changes)
    if print_config:
        common.print_and_exit(config)
    mode = common.mode_of(resume, overwrite)
    from robust_nas.nets.user_module import load_module
    from robust_nas.workflows.defend import defend

    built = None if module is None else load_module(module)
    with common.progress(quiet) as report:
        record = defend(
            config,
            model,
            out,
            module=built,
            mode=mode,
            progress=report,
            other_data=common.are_meant(other_data, None, changes),
        )
    if json:
        common.print_json({"folder": str(record.folder), **record})
    else:
        show(record, record.folder)


def show(record: dict[str, Any], folder: Path) -> None:
    """Print what the defence costs on validation images, its calibrated values, and where the model is."""
    validation, rule = record["validation"], record["rule"]
    detects = record["defended"]["false_alarms"] is not None
    rows = [
        [
            name,
            _share(counted["accuracy"]),
            *([_share(counted["false_alarms"])] if detects else []),
            str(draws),
        ]
        for name, counted, draws in (
            ("undefended", record["undefended"], 1),
            (record["label"], record["defended"], rule["samples"] or 1),
        )
    ]
    header = ["", "right and accepted" if detects else "right", *(["rejected"] if detects else []), "draws"]
    common.table(
        f"{record['name']}: {validation['images']} validation images of {validation['dataset']}, not attacked",
        header,
        rows,
    )
    for name, value in record["values"].items():
        print(f"{name:<18} {value:.6g}, of validation images")
    common.show_warnings(record)
    print("note: these are clean images; what the defence is worth under attack says robust-nas evaluate")
    if record["not_exported"]:
        print(f"note: has no exported form: {record['not_exported']}")
    print(f"model              {folder / 'model'}")
    print(f"record             {folder / 'defence.json'}")
    show_path(folder)


def _share(share: dict[str, float] | None) -> str:
    return "" if share is None else f"{share['count']} of {share['of']}, {common.percent(share['share'])}"
