"""What `evaluate` prints of a defended model: undefended, unaware, adaptive, certified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_nas.cli import common

HEADER = ("defence", "attack, alone", "clean", "under it", "95 % interval", "images")


def show_defence(found: Mapping[str, Any]) -> None:
    """Print the rows of the section `defence` of `evaluation.json`, and the false alarms of a detector."""
    common.table(f"defence {found['name']}: each attack alone", HEADER, [_row(row) for row in found["rows"]])
    if alarms := found["false_alarms"]:
        low, high = (common.percent(end) for end in alarms["interval"])
        print(
            f"false alarms       {alarms['rejected']} of {alarms['images']} clean test images rejected: "
            f"{common.percent(alarms['rate'])} ({low} to {high})"
        )


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
