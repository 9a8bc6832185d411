"""`robust-nas compress`: make a trained model faster or smaller, and measure what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from robust_nas.cli import common
from robust_nas.cli import dry_run as dry
from robust_nas.cli.completion import compressors, starting
from robust_nas.cli.report import show_path


def command(
    model: Annotated[
        str | None,
        typer.Argument(help=common.MODEL_HELP),
    ] = None,
    overrides: common.Overrides = None,
    method: Annotated[
        str | None,
        typer.Option(
            autocompletion=starting(compressors),
            help="Compressors by name, joined by + where one follows another, such as cstar+gdws "
            "(default: the recipe's own, else gdws).",
        ),
    ] = None,
    macs: Annotated[
        str | None, typer.Option(help="GDWS: shares of the MACs that stay, such as 0.5 or 0.75,0.5,0.35.")
    ] = None,
    ratio: Annotated[str | None, typer.Option(help="CSTAR: times fewer weights, such as 4 or 2,4,8.")] = None,
    module: common.Module = None,
    weights: common.Weights = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Take data, training and evaluation from this recipe, not from the model's own."),
    ] = None,
    other_data: common.OtherData = False,
    allow_code: common.AllowCode = None,
    out: Annotated[Path | None, common.out("compress")] = None,
    resume: common.Resume = False,
    overwrite: common.Overwrite = False,
    print_config: common.PrintConfig = False,
    dry_run: dry.DryRunOption = False,
    live: common.Live = False,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Compress a robust model and prove it: size, MACs, latency, accuracy and the verdict, next to the original's.

    Example: [bold]robust-nas compress results/quickstart --method cstar --ratio 2[/bold]

    Any module: [bold]robust-nas compress --module net.py:build --weights net.safetensors --recipe fashion[/bold]

    In Python: robust_nas.compress(robust_nas.compression_config(folder, "gdws"), folder)
    """
    from robust_nas.config import expand_path
    from robust_nas.workflows.compression_config import compression_config
    from robust_nas.workflows.config import doubts

    if module is not None and model is not None:
        # With --module there is no model folder: what is given in its place is the first override.
        overrides = [model, *(overrides or [])]
    _refuse_usage(model, module, weights, recipe)
    names, changes = _budgets({"ratio": ratio, "macs": macs})
    changes += overrides or []
    method = common.filled(method) or "+".join(names) or None
    other_data = common.are_meant(other_data, recipe, changes)

    config = compression_config(recipe if recipe is not None else expand_path(str(model)), method, changes)
    if print_config:
        common.print_and_exit(config)
    mode = common.mode_of(resume, overwrite)
    from robust_nas.workflows.compress import compress

    for doubt in doubts(config):
        common.say(f"warning: {doubt}")
    if dry_run:
        from robust_nas.workflows.dry_run import dry_run_compress

        if module is not None:
            raise typer.BadParameter("--dry-run needs a model folder; it does not take a module")
        dry.show(dry_run_compress(config, expand_path(str(model)), out), json)
        return
    with common.progress(quiet, live) as report:
        source = module or expand_path(str(model))
        tree = compress(
            config, source, out, weights=weights, mode=mode, progress=report, other_data=other_data
        )
    if json:
        common.print_json({"folder": str(tree.folder), **tree})
    else:
        show(tree, tree.folder)


def _refuse_usage(model: str | None, module: str | None, weights: Path | None, recipe: str | None) -> None:
    """Raise `BadParameter` for options that do not go together."""
    if module is None and model is None:
        raise typer.BadParameter("name a model folder, or a module with --module file.py:function")
    if module is None and weights is not None:
        raise typer.BadParameter("--weights goes with --module; a model folder has its own")
    if module is not None and recipe is None:
        raise typer.BadParameter(
            "a module has no data and no recipe of its own; name one, such as --recipe fashion"
        )


def _budgets(options: dict[str, str | None]) -> tuple[list[str], list[str]]:
    """Return the compressors whose budgets these options set, in the order of their steps, and the overrides."""
    from robust_nas.compression import COMPRESSORS
    from robust_nas.compression.section import SHORT, in_order

    names, changes = set(), []
    for name in SHORT:
        for option, overrides in COMPRESSORS.get(name).budget_options.items():
            if (text := options.get(option)) is not None:
                names.add(name)
                changes += [f"compression.{name}.{override.format(text)}" for override in overrides]
    return in_order(names), changes


def show(tree: dict[str, Any], folder: Path) -> None:
    """Print the table of the original and the compressed networks, and where they are."""
    rows = tree["networks"]
    threat, validation = tree["threat_model"], rows[0]["validation"]
    about = (
        f"{tree['name']}: {tree['dataset']}, {threat['norm']} eps {threat['eps']:.4g}, seed {tree['seed']}"
    )
    runtimes = [("torch", "torch"), ("onnxruntime", "ORT")]
    timed = [(key, name) for key, name in runtimes if all(key in row["latency_ms"] for row in rows)]
    header = ["network", "params", "MACs", "kB"]
    header += [f"{name}, {batch}" for _, name in timed for batch in ("1", "16")]
    sizes = [
        [
            _label(row, tree["chosen"]),
            f"{row['params']:,}",
            f"{row['macs'] / 1e6:.2f} M",
            f"{row['bytes'] / 1000:.0f}",
            *(_ms(row["latency_ms"][key][batch]) for key, _ in timed for batch in ("1", "16")),
        ]
        for row in rows
    ]
    common.table(f"{about}; ms per call at batch 1 and 16, one thread, median", header, sizes)
    common.show_warnings(tree)
    for reason in tree["not_measured"]:
        print(f"not measured: {reason}")
    attack, suite = _short(validation["attack"]), Path(tree["suite"]).name
    header = ["network", "clean\nval.", f"robust\nval., {attack}"]
    header += ["clean\ntest", f"worst case\ntest, {suite}", "95 % interval", "verdict"]
    common.table(
        f"validation: {validation['images']} images, {attack}; test: suite {suite}, through the compressed network "
        "itself; as the attacks differ, validation less test is no loss",
        header,
        [[_label(row, tree["chosen"]), *_accuracies(row)] for row in rows],
    )
    allowed = f"{100 * tree['max_loss']:g} points of robust accuracy on the validation split"
    print(
        f"* chosen: the fewest MACs within a loss of {allowed}"
        if tree["within_loss"]
        else f"* chosen: the most robust one; none stays within a loss of {allowed}"
    )
    print(f"model              {folder / 'model'}")
    print(f"compression        {folder / 'compression.json'}")
    show_path(folder)
    for path in sorted((folder / "figures").glob("*.png")):
        print(f"{'figure: ' + path.stem.replace('_', ' '):<18} {path}")


def _label(row: dict[str, Any], chosen: str) -> str:
    mark = " *" if row["label"] == chosen else ""
    return f"{row['label']}{' (baseline)' if row['baseline_of'] else ''}{mark}"


def _ms(timing: dict[str, float]) -> str:
    return f"{timing['median_ms']:.2f}"


def _short(attack: str) -> str:
    """Return the name at the head of an option value's text."""
    return attack.partition("(")[0]


def _accuracies(row: dict[str, Any]) -> list[str]:
    from robust_nas.evaluation.verdict import status_of

    validation, test = row["validation"], row["test"]
    cells = [common.percent(validation["clean"]), common.percent(validation["robust"])]
    if test is None:
        return [*cells, "", "", "", ""]
    low, high = test["robust"]["interval"]
    return [
        *cells,
        common.percent(test["clean"]["accuracy"]),
        common.percent(test["robust"]["accuracy"]),
        f"{100 * low:.1f} .. {100 * high:.1f}",
        status_of(test["verdict"]),
    ]
