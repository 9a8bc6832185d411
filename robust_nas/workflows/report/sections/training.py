"""A training: which epoch is kept, its accuracies on the validation split, and the curves."""

from __future__ import annotations

from typing import Any

from robust_nas.workflows.report.blocks import (
    Block,
    Charts,
    Details,
    Facts,
    Section,
    Table,
    Text,
    duration,
    percent,
    size,
)
from robust_nas.workflows.report.charts import Axis, Line, line_chart
from robust_nas.workflows.report.part import FIGURES, Part


def training(part: Part) -> Section | None:
    """Return the section of a training, finished or not."""
    made, epochs = part.result, part.config.get("training")
    if "architecture" not in part.config or not isinstance(epochs, dict):
        return None
    if not (made or part.metrics or part.started):  # a copy of a model folder
        return None
    planned, kept = epochs.get("epochs"), made.get("epoch")
    answer = ""
    if kept is not None:
        answer = (
            f"Epoch {kept + 1} of {planned} is kept: on validation images {percent(made.get('validation_robust'))} "
            f"under attack, {percent(made.get('validation_clean'))} without."
        )
    elif not made:
        answer = _so_far(part, planned)
    blocks: list[Block] = [Text(str(one), "warn") for one in made.get("warnings") or ()]
    blocks.append(
        Facts(
            [
                ("loss", str((epochs.get("loss") or {}).get("name", ""))),
                ("validated by", str((epochs.get("validation_attack") or {}).get("name", ""))),
                ("dataset", str(made.get("dataset", ""))),
                ("epochs", f"{len(part.metrics)} of {planned}"),
                ("parameters", size(made.get("params"))),
                ("MACs of an image", size(made.get("macs"))),
                ("time", duration(made.get("seconds"))),
            ]
        )
    )
    options = [[key, str(made[key])] for key in ("loss", "validation_attack") if made.get(key)]
    if options:
        blocks.append(
            Details(
                "Loss and validation as the recipe has them",
                [Table(("", ""), options, frozenset({0, 1}))],
            )
        )
    if part.metrics and not part.has(f"{FIGURES}/training.svg"):
        blocks.append(_curves(part))
    limits = ["Accuracies of a training are those of its validation split, by which the epoch was chosen."]
    return Section("Training", answer, blocks, limits)


def _so_far(part: Part, planned: Any) -> str:
    """Return the best validated epoch of a training that is not finished, as the training chooses it; or nothing."""
    validated = [row for row in part.metrics if isinstance(row.get("robust"), float)]
    if not validated:
        return ""
    best = max(validated, key=lambda row: float(row["robust"]))
    return (
        f"So far epoch {best.get('epoch', 0) + 1} of {planned} is the best: on validation images "
        f"{percent(best['robust'])} under attack, {percent(best.get('clean'))} without."
    )


def _curves(part: Part) -> Charts:
    x = [row.get("epoch", place) + 1 for place, row in enumerate(part.metrics)]

    def lines(*keys: str) -> list[Line]:
        return [Line(key.replace("_", " "), x, [row.get(key) for row in part.metrics]) for key in keys]

    shares = line_chart(
        Axis("validation accuracy", "epoch", "share", (0.0, 1.0)), lines("clean", "robust", "train_accuracy")
    )
    loss = line_chart(Axis("training loss", "epoch", "nats"), lines("loss"))
    return Charts("Curves so far", [shares, loss], ("clean", "robust", "train accuracy"))
