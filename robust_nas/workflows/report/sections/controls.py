"""A search next to random networks of equal MACs, trained and evaluated by one recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_nas.workflows.report.blocks import Section, Table, percent, score, size, threat
from robust_nas.workflows.report.part import Part


def controls(part: Part) -> Section | None:
    """Return the section of `controls.json`."""
    tree = part.record("controls.json")
    if tree is None:
        return None
    difference = tree.get("difference")
    answer = ""
    if tree.get("words") and difference:
        answer = f"The result is {tree['words']}: {_points(difference['robust'])} in robust accuracy."
    rows = [
        [
            one["label"],
            one["group"],
            size(one["params"]),
            size(one["macs"]),
            percent(one["clean"]),
            score({"accuracy": one["robust"], "interval": one["robust_interval"]}),
            one["verdict"],
        ]
        for one in tree["networks"]
    ]
    marked = frozenset(place for place, one in enumerate(tree["networks"]) if one["group"] == "result")
    header = ("network", "group", "parameters", "MACs", "clean", "robust", "verdict")
    note = f"{threat(tree.get('threat_model'))}, {tree['images']} test images; one recipe for all."
    limits = []
    if difference and not difference["robust"]["includes_seeds"]:
        limits.append(
            "With one control the interval covers images, not how much networks of equal MACs differ."
        )
    table = Table(header, rows, frozenset({0, 1, 6}), marked, title="Networks", note=note)
    return Section("Controls", answer, [table], limits)


def _points(difference: Mapping[str, Any]) -> str:
    low, high = difference.get("interval") or (None, None)
    between = (
        f" [{100 * low:+.1f}, {100 * high:+.1f}]" if low is not None and high is not None else ", no interval"
    )
    return f"{100 * difference['effect']:+.1f} points{between}"
