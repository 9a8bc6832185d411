"""`robust-nas train`: an architecture and a recipe make a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from robust_nas.cli import common
from robust_nas.cli.dry_run import DryRunOption, show
from robust_nas.cli.report import show_path
from robust_nas.distributed import is_first
from robust_nas.errors import ConfigError

if TYPE_CHECKING:
    from robust_nas.workflows.config import RunConfig


def command(
    recipe: common.Recipe,
    overrides: common.Overrides = None,
    architecture: Annotated[
        str,
        typer.Option(
            "--architecture", "-a", help="A shipped name, wrn-D-k, a YAML file, or a folder that holds one."
        ),
    ] = "",
    allow_code: common.AllowCode = None,
    out: Annotated[Path | None, common.out("train")] = None,
    resume: common.Resume = False,
    overwrite: common.Overwrite = False,
    print_config: common.PrintConfig = False,
    dry_run: DryRunOption = False,
    live: common.Live = False,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Train an architecture by a recipe and write the model folder.

    The architecture keeps its own size; network.cells and network.channels size what a search finds.

    Example: [bold]robust-nas train quickstart --architecture arnas --out results/arnas-digits[/bold]

    Continue it, with more epochs: [bold]robust-nas train --resume results/arnas-digits training.epochs=80[/bold]

    In Python: robust_nas.train(config, robust_nas.load_architecture("arnas"))
    """
    from robust_nas.workflows.config import doubts

    config = common.resolve(recipe, overrides, print_config)
    mode = common.mode_of(resume, overwrite)
    for doubt in doubts(config):
        common.say(f"warning: {doubt}")
    out = common.resumed(recipe, out, resume)
    if not architecture and not (resume and out):
        raise typer.BadParameter("name the architecture to train, such as --architecture arnas")
    from robust_nas.config import expand_path
    from robust_nas.spaces import load_architecture
    from robust_nas.workflows.train import architecture_of

    chosen = load_architecture(architecture) if architecture else architecture_of(cast(Path, out))
    if dry_run:
        from robust_nas.workflows.dry_run import dry_run_train

        show(dry_run_train(config, chosen, out), json)
        return
    source = expand_path(architecture).resolve()
    if overwrite and out and source.exists() and out.resolve() in (source, *source.parents):
        raise ConfigError(
            f"--out: {out} holds the architecture {architecture}, which --overwrite would remove"
        )
    from robust_nas.workflows.train import train

    with common.progress(quiet, live) as report:
        folder = train(config, chosen, out, mode=mode, progress=report)
    if is_first():
        _report(config, folder, json)


def _report(config: RunConfig, folder: Path, json: bool) -> None:
    """Print the result of a training, as JSON or for people."""
    from robust_nas.workflows.train import architecture_of, epochs_of, trained_record

    record = trained_record(folder)
    if json:
        common.print_json({"folder": str(folder), **record})
        return
    row = [
        architecture_of(folder).name,
        f"{record['params']:,}",
        f"{record['macs'] / 1e6:.2f} M",
        f"{record['epoch'] + 1} of {epochs_of(folder)}",
        common.percent(record["validation_clean"]),
        common.percent(record["validation_robust"]),
        f"{record['seconds']:.0f}",
    ]
    attack = config.training.validation_attack.name
    header = (
        "architecture",
        "params",
        "MACs",
        "epoch kept",
        "clean (val.)",
        f"robust (val., {attack})",
        "seconds",
    )
    common.table(f"{config.name}: training, validation split", header, [row])
    print(f"model              {folder}")
    show_path(folder)
    if (curves := folder / "figures" / "training.png").is_file():
        print(f"curves             {curves}")
