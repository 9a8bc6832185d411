"""`robust-nas attack run`: apply any attack to a model's images and save what it made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from robust_nas.cli import common
from robust_nas.cli.set_table import show_set

CONFIG_KEYS = (
    "data",
    "evaluation",
    "seed",
    "device",
    "threads",
)  # of the recipe; the others are the attack's
Attack = Annotated[str, typer.Argument(help="The name of an attack, or a YAML file with `name` and options.")]
Model = Annotated[
    str,
    typer.Argument(help=common.MODEL_HELP),
]
Values = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Options of the attack, such as eps=8/255 or steps=50; data.*, evaluation.*, seed, device and threads are "
        "those of the recipe.",
    ),
]


def command(
    attack: Attack,
    model: Model,
    overrides: Values = None,
    data: Annotated[
        str | None,
        typer.Option(
            callback=common.filled, help="As of evaluate: a dataset, an image folder, or where it is now."
        ),
    ] = None,
    images: Annotated[int | None, typer.Option(help="The largest number of images.", min=1)] = None,
    part: Annotated[str, typer.Option(help="test or validation.")] = "test",
    out: Annotated[Path | None, common.out("attack run")] = None,
    other_data: common.OtherData = False,
    allow_code: common.AllowCode = None,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Attack a model and save the images: `set.npz`, `attack.json`, and a page of examples.

    Norm and eps are those of the model's evaluation where they are not given; eps=null lets an attack of the smallest
    perturbation go as far as it must. What is there already is not overwritten.

    Example: [bold]robust-nas attack run apgd results/quickstart steps=50 --images 100[/bold]

    In Python: robust_nas.run_attack("apgd", "results/quickstart", options={"steps": 50}, images=100)
    """
    from robust_nas.cli.evaluate import data_overrides
    from robust_nas.overrides import apply_overrides
    from robust_nas.workflows.attack_run import run_attack

    if part not in ("test", "validation"):
        raise typer.BadParameter(f"--part: got {part!r}; allowed: test, validation")
    given = overrides or []
    changes = [text for text in given if text.partition("=")[0].strip().partition(".")[0] in CONFIG_KEYS]
    options = apply_overrides({}, [text for text in given if text not in changes])
    changes = [*data_overrides(data, model), *changes]
    with common.progress(quiet) as report:
        record = run_attack(
            attack,
            model,
            out,
            options=options,
            overrides=changes,
            images=images,
            part="test" if part == "test" else "validation",
            progress=report,
            other_data=common.are_meant(other_data, None, changes),
        )
    if json:
        common.print_json({"folder": str(record.folder), **record})
    else:
        _show(record, record.folder)


def _show(record: dict[str, Any], folder: Path) -> None:
    threat = record["threat_model"]
    eps = "no bound" if threat["eps"] is None else f"eps {threat['eps']:.4g}"
    title = f"{record['model']}: {record['data']['name']} ({record['data']['part']}), {record['label']}, "
    show_set(f"{title}{threat['norm']} {eps}, seed {record['seed']}", record)
    passes, count = record["passes"], record["images"]
    print(f"passes an image    {passes['forward']:.4g} forward, {passes['backward']:.4g} backward")
    if record["queries"]:
        print(
            f"queries an image   {record['queries']['mean']:.4g} on average, {record['queries']['most']} at most"
        )
    print(f"time               {record['seconds']:.3g} s, {1000 * record['seconds'] / count:.3g} ms an image")
    for flag in record["flags"]:
        print(f"warning            {flag}")
    for name in ("set.npz", "attack.json", "examples.png", "report.html"):
        if (folder / name).exists():
            print(f"{name:<18} {folder / name}")
