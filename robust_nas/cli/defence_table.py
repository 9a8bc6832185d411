"""What `evaluate` prints of a model next to its twin: undefended, unaware, adaptive, certified; or mean and random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_nas.cli import common

HEADER = ("attack, alone", "clean", "under it", "95 % interval", "images")


def show_defence(found: Mapping[str, Any]) -> None:
    """Print the rows of the section `defence` of `evaluation.json`, and the false alarms of a detector."""
    show_rows("defence", f"defence {found['name']}", found)
    if alarms := found["false_alarms"]:
        low, high = (common.percent(end) for end in alarms["interval"])
        print(
            f"false alarms       {alarms['rejected']} of {alarms['images']} clean test images rejected: "
            f"{common.percent(alarms['rate'])} ({low} to {high})"
        )


def show_rows(column: str, what: str, found: Mapping[str, Any]) -> None:
    """Print the rows of a comparison of a model with its twin; `column` heads the first one, `what` is the title."""
    common.table(f"{what}: each attack alone", (column, *HEADER), [_row(row) for row in found["rows"]])


def _row(row: Mapping[str, Any]) -> list[str]:
    clean, robust = row["clean"], row["robust"]
    shown = ["-", "-"]
    if robust is not None:
        low, high = robust["interval"]
        shown = [common.percent(robust["accuracy"]), f"{100 * low:.1f} .. {100 * high:.1f}"]
    return [
        row["kind"],
        row["attack"] or "-",
        common.percent(clean["accuracy"]),
        *shown,
        str(clean["images"]),
    ]
