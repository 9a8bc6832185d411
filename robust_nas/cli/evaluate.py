"""`robust-nas evaluate`: attack a trained model on the test set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robust_nas.cli import common


def command(
    model: Annotated[Path, typer.Argument(help="A model folder, such as results/quickstart/model.")],
    overrides: common.Overrides = None,
    recipe: Annotated[
        str | None, typer.Option(help="Take data and evaluation from this recipe instead of the model's own.")
    ] = None,
    out: common.Out = None,
    resume: common.Resume = False,
    overwrite: common.Overwrite = False,
    print_config: common.PrintConfig = False,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Attack a model: clean accuracy, every attack, the worst case per example, Wilson intervals.

    Example: [bold]robust-nas evaluate results/quickstart/model evaluation.images=100[/bold]

    In Python: robust_nas.evaluate(config, pathlib.Path("results/quickstart/model"))
    """
    from robust_nas.recipes import load_config, model_config

    config = load_config(recipe, overrides or ()) if recipe else model_config(model, overrides or ())
    if print_config:
        from robust_nas.config import to_yaml

        typer.echo(to_yaml(config), nl=False)
        return
    mode = common.mode_of(resume, overwrite)
    from robust_nas.jobs.evaluate import evaluate

    folder = out or model / "evaluation"
    with common.progress(quiet) as report:
        tree = evaluate(config, model, folder, mode=mode, progress=report)
    if json:
        common.print_json(tree)
        return
    threat = tree["threat_model"]
    eps = config.evaluation.threat_model.eps
    title = f"{model}: {tree['dataset']}, {threat['norm']} eps {eps:.4g}, seed {tree['seed']}"
    common.table(title, common.ACCURACY_HEADER, common.accuracy_rows(tree))
    for flag in tree["flags"]:
        common.say(f"warning: {flag}")
    print(f"evaluation         {folder / 'evaluation.json'}")
    print(f"figure             {folder / 'figures/evaluation.png'}")
