"""`robust-nas config`: where configs differ."""

from __future__ import annotations

from typing import Annotated

import typer

from robust_nas.cli import common

app = typer.Typer(help="Compare configs.", no_args_is_help=True, rich_markup_mode="rich")
Config = Annotated[str, typer.Argument(help="A recipe, a YAML file, or the folder of a run.")]


@app.command()
def diff(a: Config, b: Config, json: common.Json = False) -> None:
    """Show the keys at which two configs differ, with the values of both; a file's base and defaults are filled in.

    Example: [bold]robust-nas config diff quickstart results/quickstart[/bold]

    In Python: robust_nas.config_diff("quickstart", "results/quickstart")
    """
    from robust_nas.config import to_yaml
    from robust_nas.workflows.config_diff import config_diff

    found = config_diff(a, b)
    if json:
        common.print_json({key: {"a": values[0], "b": values[1]} for key, values in found.items()})
    elif not found:
        print("the configs do not differ")
    else:
        rows = [
            [key, *(to_yaml({"v": value}).removeprefix("v:").strip() for value in values)]
            for key, values in found.items()
        ]
        common.table("where the configs differ", ("key", a, b), rows)
