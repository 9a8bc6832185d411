"""`robust-nas export`: a model as plain Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robust_nas.cli import common


def command(
    model: Annotated[Path, typer.Argument(help="A model folder, such as results/quickstart/model.")],
    out: common.Out = None,
    overwrite: common.Overwrite = False,
    json: common.Json = False,
) -> None:
    """Write a model as one Python file that needs torch alone, and its weights.

    Example: [bold]robust-nas export results/quickstart/model --out deployed[/bold]

    In Python: robust_nas.export(pathlib.Path("results/quickstart/model"))
    """
    from robust_nas.jobs.export import export

    folder = export(model, out, overwrite=overwrite)
    if json:
        common.print_json({"folder": str(folder), "source": "network.py", "weights": "weights.pt"})
        return
    print(f"source             {folder / 'network.py'}")
    print(f"weights            {folder / 'weights.pt'}")
