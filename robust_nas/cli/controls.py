"""Show a search's result next to its controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_nas.cli import common


def show(tree: Mapping[str, Any]) -> None:
    """Print a line a network, and the difference of the result to the random networks with its interval."""
    rows = [
        [
            one["label"],
            f"{one['params']:,}",
            f"{one['macs'] / 1e6:.2f} M",
            common.percent(one["clean"]),
            common.percent(one["robust"]),
            " to ".join(common.percent(bound) for bound in one["robust_interval"]),
            one["verdict"],
        ]
        for one in tree["networks"]
    ]
    header = ("network", "params", "MACs", "clean", "robust", "95 % interval", "verdict")
    common.table(f"the result and its controls, {tree['images']} images", header, rows)
    if tree["difference"] is not None:
        robust = tree["difference"]["robust"]
        interval = "no interval: all answers are equal"
        if robust["interval"] is not None:
            low, high = (100 * bound for bound in robust["interval"])
            over = "images and networks" if robust["includes_seeds"] else "images alone"
            interval = f"{low:+.1f} to {high:+.1f}, 95 % over {over}"
        print(
            f"result - random     {100 * robust['effect']:+.1f} points of robust accuracy ({interval}): {tree['words']}"
        )
