"""`robust-nas attack`: run one attack and save what it made."""

from __future__ import annotations

import typer

from robust_nas.cli import attack_run

app = typer.Typer(help="Run one attack on a model and save what it made.", no_args_is_help=True)
app.command("run")(attack_run.command)
