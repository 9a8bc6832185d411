"""What `attack run` and `evaluate --images FILE.npz` print of adversarial images."""

from __future__ import annotations

from typing import Any

from robust_nas.cli import common


def show_set(title: str, record: dict[str, Any]) -> None:
    """Print accuracies, success and distances of images and what an attack made of them."""
    rows = []
    for key, words in (
        ("clean", "right as they are"),
        ("robust", "right before and after"),
        ("success", "turned wrong, of those right"),
    ):
        found = record[key]
        if found is None:
            rows.append([words, "0 of 0", "", ""])
            continue
        interval = f"{common.percent(found['low'])} to {common.percent(found['high'])}"
        rows.append([words, f"{found['count']} of {found['of']}", common.percent(found["share"]), interval])
    common.table(title, ("images", "count", "share", "95 % interval"), rows)
    sizes = [
        [
            norm,
            "-" if size is None else f"{size['median']:.4g}",
            "-" if size is None else f"{size['largest']:.4g}",
        ]
        for norm, size in record["distances"].items()
    ]
    common.table("distance of the images turned wrong", ("norm", "median", "largest"), sizes)
