"""`robust-nas evaluate --images FILE.npz`: how a model answers on a saved set of adversarial images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import typer

from robust_nas.cli import common
from robust_nas.cli.set_table import show_set


def evaluate_saved(
    model: str,
    file: str,
    weights: Path | None,
    others: Mapping[str, object],
    out: Path | None,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Print the answers of a model, or of a `file.py:function`, on a set; `others` are options that do not fit."""
    from robust_nas.workflows.saved_set import RECORD, evaluate_set

    given = [name for name, value in others.items() if value]
    if given:
        raise typer.BadParameter(
            f"--images {file} evaluates saved images as they are; {', '.join(given)} does not go with it. To use the "
            "set in a suite, list the attack {name: saved, file: " + file + "}"
        )
    with common.progress(quiet) as report:
        record = evaluate_set(model, file, out, weights=weights, progress=report)
    if json:
        common.print_json(record)
        return
    meta = record["set"]
    threat = meta["threat_model"]
    eps = "no bound" if threat["eps"] is None else f"eps {threat['eps']:.4g}"
    show_set(f"{model}: {meta['label']} in {threat['norm']}, {eps}, of {file}", record)
    if record["victim"] == "own":
        print("victim             the set was made for this very model")
    else:
        name = meta.get("model") or meta["victim"][:12]
        print(
            f"victim             another model, {name}: a transfer attack, an upper bound of the robust accuracy"
        )
    if out is not None:
        print(f"{RECORD:<18} {out / RECORD}")
