"""`robust-nas predict`: what a model answers for image files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robust_nas.cli import common


def command(
    model: Annotated[
        Path,
        typer.Argument(callback=common.expanded, help=common.MODEL_HELP),
    ],
    images: Annotated[list[str], typer.Argument(help="Image files, or folders of them.")],
    fit: Annotated[
        bool, typer.Option("--fit", help="Resize images of another size; make colours grey for a grey model.")
    ] = False,
    top: Annotated[int, typer.Option(help="Classes to show of each image.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Seed of what a random network draws.", min=0)] = 0,
    allow_code: common.AllowCode = None,
    json: common.Json = False,
) -> None:
    """Print what a model answers for image files: the class and its probability, as they are, without an attack.

    Example: [bold]robust-nas predict results/quickstart digit.png --fit[/bold]

    In Python: robust_nas.predict("results/quickstart", ["digit.png"], fit=True)
    """
    from robust_nas.workflows.predict import predict

    found = predict(model, images, fit=fit, seed=seed)
    if json:
        common.print_json(
            [
                {
                    "file": one.file,
                    "answer": one.answer,
                    "probability": one.probability,
                    "ranked": [list(each) for each in one.ranked[:top]],
                }
                for one in found
            ]
        )
        return
    width = max(len(one.file) for one in found)
    for one in found:
        shown = ", ".join(f"{name} {100 * share:.1f} %" for name, share in one.ranked[:top])
        print(f"{one.file:<{width}}  {'rejected' if one.answer is None else one.answer}  ({shown})")
