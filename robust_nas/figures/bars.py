"""The rows of an evaluation, for its waterfall and its table; nothing here imports matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]


def evaluation_bars(tree: Record) -> list[dict[str, Any]]:
    """Return a row per bar: clean, what each attack (on its share) left right, and the worst case.

    `tree` is the content of `evaluation.json`. A row is {label, accuracy, low, high, images, attacked, broken}; the
    last two are None where no attack ran.
    """
    rows: list[tuple[str, Record, Record]] = [("clean", tree["clean"], {})]
    rows += [(f"+ {attack['label']}", attack["share"], attack) for attack in tree["attacks"]]
    return [
        {
            "label": label,
            "accuracy": score["accuracy"],
            "low": score["interval"][0],
            "high": score["interval"][1],
            "images": score["images"],
            "attacked": attack.get("attacked"),
            "broken": attack.get("broken"),
        }
        for label, score, attack in [*rows, ("worst case", tree["robust"], {})]
    ]
