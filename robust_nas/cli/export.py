"""`robust-nas export`: a model as plain Python, ONNX or torch.export, and whether it computes the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robust_nas.cli import common
from robust_nas.cli.completion import forms as _forms
from robust_nas.cli.completion import starting

if TYPE_CHECKING:
    from robust_nas.workflows.config import EvaluationConfig


Module = Annotated[
    str | None,
    typer.Option(
        callback=common.filled,
        metavar="FILE.py:FUNCTION",
        help="The Python file, which is run, and its function that builds the module that the model was compressed "
        "from.",
    ),
]


def command(
    model: Annotated[
        Path,
        typer.Argument(callback=common.expanded, help=common.MODEL_HELP),
    ],
    overrides: common.Overrides = None,
    form: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            autocompletion=starting(_forms),
            help="source (default), onnx, program (torch.export), hub (a folder for a model hub, which load_model "
            "reads); may be repeated, or all.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Run the exported forms on test images and compare with the model."),
    ] = False,
    images: Annotated[int, typer.Option(help="The largest number of test images in the check.", min=1)] = 256,
    module: Module = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            callback=common.filled,
            help="Of the check: take the data from this recipe, not from the model's own.",
        ),
    ] = None,
    other_data: common.OtherData = False,
    allow_code: common.AllowCode = None,
    out: Annotated[Path | None, common.out("export")] = None,
    overwrite: common.Overwrite = False,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Write a model in forms that run elsewhere; with --check, prove that they compute the same. Exit code 1 if not.

    Example: [bold]robust-nas export results/quickstart --format onnx --check[/bold]

    In Python: robust_nas.export_model(folder, forms=("source", "onnx", "program", "hub"))
    """
    from robust_nas.nets.user_module import load_module
    from robust_nas.workflows.export import (
        FILES,
        FORMS,
        check_context,
        check_export,
        checked_forms,
        export_model,
        refuse_export,
    )
    from robust_nas.workflows.places import model_in, of_files

    model = model_in(model)
    forms = checked_forms(FORMS if "all" in (form or ()) else form or ["source"])
    if not check and (overrides or recipe):
        raise typer.BadParameter("config values and --recipe say what --check runs on; it is not given")
    config = _checked_on(model, recipe, overrides or []) if check else None
    context = None
    built = None if module is None else load_module(module)
    if config is not None:
        refuse_export(model, out or of_files("export", model), forms, module=built, overwrite=overwrite)
        meant = common.are_meant(other_data, recipe, overrides or [])
        context = check_context(config, model, module=built, other_data=meant)
    with common.progress(quiet) as report:
        folder = export_model(model, out, forms=forms, module=built, overwrite=overwrite, progress=report)
    checked = {}
    if config is not None:
        checked = check_export(config, model, folder, forms, images=images, module=built, context=context)
    files: dict[str, str] = {name: FILES[name] for name in forms}
    if json:
        source = {"source": "network.py", "weights": "weights.pt"} if "source" in forms else {}
        common.print_json({"folder": str(folder), "forms": files, "check": checked or None, **source})
    else:
        _show(folder, files, checked)
    failed = [name for name, found in checked.items() if not found["passes"]]
    if failed:
        common.say(f"error: {', '.join(failed)} computes other logits than the model")
        raise typer.Exit(1)


def _checked_on(model: Path, recipe: str | None, changes: list[str]) -> EvaluationConfig:
    """Return the data that `--check` takes: of a recipe, or the model's own."""
    from robust_nas.workflows.config import EvaluationConfig, load_config, model_config

    return EvaluationConfig.of(load_config(recipe, changes)) if recipe else model_config(model, changes)


def _show(folder: Path, files: Mapping[str, str], checked: Mapping[str, dict[str, Any]]) -> None:
    """Print the comparison, where there was one, and the files."""
    if checked:
        rows = [
            [
                name,
                f"{found['bytes'] / 1000:.0f}",
                f"{found['max_difference']:.2g}",
                f"{found['disagreement']:.2g}",
                f"{found['tolerance']:.2g}",
                common.percent(found["accuracy"]),
                common.percent(found["model_accuracy"]),
                "same" if found["passes"] else "DIFFERS",
            ]
            for name, found in checked.items()
        ]
        header = (
            "form",
            "kB",
            "largest difference",
            "relative",
            "allowed",
            "accuracy",
            "the model's",
            "logits",
        )
        images = next(iter(checked.values()))["images"]
        common.table(f"{images} test images, logits and clean accuracy", header, rows)
    for name, file in files.items():
        print(f"{name:<18} {folder / file}")
    if "source" in files:
        print(f"weights            {folder / 'weights.pt'}")
