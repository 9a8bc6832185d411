"""`robust-nas attack`: attacks that are trained, and what one attack makes of a model's images."""

from __future__ import annotations

import typer

from robust_nas.cli import attack_run, attack_train

app = typer.Typer(
    help="Train an attack against a model, or run one and save what it made.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(attack_train.command)
app.command("run")(attack_run.command)
