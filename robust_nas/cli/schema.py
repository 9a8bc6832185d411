"""`robust-nas schema`: the JSON schema of a kind of config file, for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robust_nas.cli import common


def command(
    kind: Annotated[
        str, typer.Argument(help="recipe, study, suite, space, distillation or attack-training.")
    ] = "recipe",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", callback=common.expanded, help="A file that is written, or replaced, instead."
        ),
    ] = None,
    json: common.Json = False,
) -> None:
    """Print the JSON schema of a kind of config file: keys, methods with their options, plugins included.

    An editor completes and checks a file that begins with [bold]# yaml-language-server: $schema=recipe.json[/bold].

    Example: [bold]robust-nas schema recipe --out recipe.json[/bold]

    In Python: robust_nas.config_schema("recipe")
    """
    from robust_nas.studies.schemas import config_schema

    found = config_schema(kind)
    if out is None:
        common.print_json(found)
        return
    from robust_nas.files import write_json

    write_json(out, found)
    if json:
        common.print_json({"schema": str(out)})
    else:
        print(out)
