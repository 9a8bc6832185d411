"""`robust-nas distill`: a small training set that is learned, and kernel regression on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from robust_nas.cli import common
from robust_nas.cli.report import show_path


def command(
    recipe: common.Recipe,
    overrides: common.Overrides = None,
    method: Annotated[
        str | None,
        typer.Option(
            callback=common.filled, help="adv-kip (the usual one), kip, or file.py:Class of your own."
        ),
    ] = None,
    allow_code: common.AllowCode = None,
    out: Annotated[Path | None, common.out("distill")] = None,
    resume: common.Resume = False,
    overwrite: common.Overwrite = False,
    print_config: common.PrintConfig = False,
    live: common.Live = False,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Learn a small training set, and write it with a model folder of kernel regression on it.

    Of the recipe, data, threat model and evaluation are taken.

    Example: [bold]robust-nas distill quickstart --method adv-kip method.per_class=5[/bold]

    Then: [bold]robust-nas evaluate results/quickstart-adv-kip[/bold]

    And a network: [bold]robust-nas train quickstart -a wrn-10-1 data.name=npz
    data.path=results/quickstart-adv-kip/learned.npz[/bold]

    In Python: robust_nas.distill(robust_nas.distill_config("quickstart", "adv-kip"))
    """
    from robust_nas.workflows.distill_config import distill_config

    config = distill_config(recipe, method, overrides or [])
    if print_config:
        common.print_and_exit(config)
    mode = common.mode_of(resume, overwrite)
    from robust_nas.workflows.distill import default_folder, distill

    folder = common.resumed(recipe, out, resume) or default_folder(config)
    with common.progress(quiet, live) as report:
        record = distill(config, folder, mode=mode, progress=report)
    if json:
        common.print_json({"folder": str(folder), **record})
    else:
        show(record, folder)


def show(record: dict[str, Any], folder: Path) -> None:
    """Print accuracies on the validation split, of the start and of the kept set, and where the files are."""
    rows = [
        ["real images", "0", *(common.percent(record["start"][key]) for key in ("clean", "robust"))],
        [
            record["method"],
            str(record["step"]),
            *(common.percent(record[f"validation_{key}"]) for key in ("clean", "robust")),
        ],
    ]
    common.table(
        f"{record['recipe']}: kernel regression ({record['kernel']}) on {record['support']} images, "
        f"{record['validation_images']} validation images of {record['dataset']}, seed {record['seed']}",
        ("set", "step", "clean", "after PGD"),
        rows,
    )
    if record["other_labels"]:
        print(
            f"note: {record['other_labels']} learned targets are largest at another class than the image began with"
        )
    print(
        "note: accuracy after PGD alone misleads for this method; robust-nas evaluate attacks in other ways too"
    )
    print(f"model              {folder}")
    print(f"learned set        {folder / 'learned.npz'}")
    show_path(folder)
    if (pictures := folder / "figures" / "learned-set.png").is_file():
        print(f"pictures           {pictures}")
