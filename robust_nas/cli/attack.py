"""`robust-nas attack`: attacks that are trained, and attacks on images."""

from __future__ import annotations

import typer

from robust_nas.cli import attack_train

app = typer.Typer(
    help="Train an attack against a model.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(attack_train.command)
