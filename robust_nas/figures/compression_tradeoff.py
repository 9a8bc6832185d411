"""What compression costs: robust accuracy against multiply-adds, and against milliseconds, a point a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.stats import binomtest

from robust_nas.errors import RunError
from robust_nas.figures import style
from robust_nas.figures.figure import Figure, Job
from robust_nas.figures.series import Record
from robust_nas.figures.study_points import place_names

_ORIGINAL = (style.BLACK, "*")
# Distinct by their form too, not by colour alone; given to the methods in the order in which they appear.
_STYLES = (
    (style.VERMILLION, "s"),
    (style.BLUE, "o"),
    (style.ORANGE, "^"),
    (style.GREEN, "<"),
    (style.SKY, "v"),
    (style.PURPLE, "D"),
)
_KEYS = (
    "label",
    "method",
    "split",
    "macs",
    "params",
    "latency_ms",
    "clean",
    "robust",
    "low",
    "high",
    "chosen",
)


class CompressionTradeoff(Figure):
    """Robust accuracy of every network of a compression against its cost."""

    of: ClassVar[Job] = "compression"
    needs: ClassVar[tuple[str, ...]] = ("networks",)

    name: Literal["compression"] = "compression"

    def caption(self, record: Record, about: str) -> str:
        """Return `about`, and attack and images of both splits."""
        first = record["networks"][0]
        validation, test = first["validation"], first["test"]["robust"]
        return (
            f"{about}; validation: {validation['attack'].partition('(')[0]}, {validation['images']} images; "
            f"test: {' + '.join(test['attacks'])}, {test['images']} images; ring: chosen on validation"
        )

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `networks`, on the validation split and, where they were evaluated, on the test set."""
        points = [point for row in record["networks"] for point in _points(row, record["chosen"])]
        runtime = "ONNX Runtime" if "onnxruntime" in record["networks"][0]["latency_ms"] else "torch"
        validated = record["networks"][0]["validation"]["attack"].partition("(")[0]
        attacks = {"validation": validated, "test": f"suite {Path(record['suite']).name}"}
        timing = f"{runtime}, batch 1, one thread"
        return plot_compression(points, stem, latency=timing, attacks=attacks, caption=caption)


def _points(row: Record, chosen: str) -> list[dict[str, Any]]:
    """Return the points of a network, one a split that it was measured on."""
    timed = row["latency_ms"].get("onnxruntime") or row["latency_ms"].get("torch")  # either may be a gap
    shared: dict[str, Any] = {key: row[key] for key in ("label", "method", "macs", "params")}
    shared |= {"latency_ms": timed["1"]["median_ms"] if timed else None, "chosen": row["label"] == chosen}
    shared |= {"baseline": row["baseline_of"] is not None}
    found = row["validation"]
    interval = binomtest(round(found["robust"] * found["images"]), found["images"]).proportion_ci(
        method="wilson"
    )
    limits = {"low": float(interval.low), "high": float(interval.high)}
    points = [shared | {"split": "validation", **limits, "clean": found["clean"], "robust": found["robust"]}]
    if row["test"]:
        low, high = row["test"]["robust"]["interval"]
        judged = {key: row["test"][key]["accuracy"] for key in ("clean", "robust")}
        points.append(shared | {"split": "test", "low": low, "high": high, **judged})
    return points


@style.drawing()
def plot_compression(
    points: Sequence[Record],
    stem: Path,
    *,
    latency: str = "",
    attacks: Mapping[str, str] | None = None,
    caption: str = "",
) -> tuple[Path, ...]:
    """Draw the networks, test set filled and validation split hollow; return the paths.

    Args:
        points: mappings with `label`, `method` (original, or the name of a compressor or baseline), `split`
            (validation or test), `baseline` (whether it is there for comparison; default False), `macs`, `params`,
            `latency_ms` (or None), `clean`, `robust`, `low` and `high` (0..1, the 95 % interval of `robust`), and
            `chosen`.
        stem: where to write, without a suffix.
        latency: how the milliseconds were taken, for the axis; the second panel is left out where there are none.
        attacks: split -> the attack or suite of its robust accuracy, for the legend: another attack is no loss.
        caption: attacks, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: there are no points, or the files cannot be written.
    """
    if not points:
        raise RunError("there is nothing to draw of a compression: no network was measured")
    timed = [point for point in points if point.get("latency_ms")]
    figure, axes = style.new_figure(1, 2 if timed else 1, height=4.2, caption=caption)
    looks = _looks(points)
    _panel(axes[0], points, looks, "macs", 1e6, "multiply-adds an image, M")
    if timed:
        _panel(axes[1], timed, looks, "latency_ms", 1.0, f"{latency or 'a call'}, ms")
    axes[0].set_ylabel("robust accuracy, %")
    handles = [
        Line2D([], [], linestyle="", marker=marker, color=colour, label=_title(name, points))
        for name, (colour, marker) in looks.items()
    ]
    splits = {str(point["split"]) for point in points}
    handles += [
        Line2D(
            [],
            [],
            linestyle="",
            marker="o",
            color=style.GREY,
            markerfacecolor=face,
            label=_with(attacks, split, text),
        )
        for split, face, text in (
            ("validation", "white", "validation split (hollow)"),
            ("test", style.GREY, "test set, 95 % interval"),
        )
        if split in splits
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    for panel, rows, key, unit in zip(
        axes, (points, timed), ("macs", "latency_ms"), (1e6, 1.0), strict=False
    ):
        shown = [row for row in rows if row["split"] == "test"] or list(rows)
        named = [
            (row[key] / unit, 100 * row["robust"], str(row["label"]), str(row["label"])) for row in shown
        ]
        place_names(figure, panel, named, 6.5)
    return style.save(figure, stem, (_KEYS, [[point.get(key) for key in _KEYS] for point in points]))


def _looks(points: Sequence[Record]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of every method, in the order in which they appear."""
    methods = dict.fromkeys(str(point["method"]) for point in points)
    others = [method for method in methods if method != "original"]
    looks = {method: _STYLES[number % len(_STYLES)] for number, method in enumerate(others)}
    return {method: looks.get(method, _ORIGINAL) for method in methods}


def _with(attacks: Mapping[str, str] | None, split: str, text: str) -> str:
    attack = (attacks or {}).get(split)
    return f"{text}, {attack}" if attack else text


def _title(method: str, points: Sequence[Record]) -> str:
    return f"{method} (baseline)" if _is_baseline(method, points) else method


def _is_baseline(method: str, points: Sequence[Record]) -> bool:
    return any(point.get("baseline") for point in points if point["method"] == method)


def _panel(
    axes: Axes,
    points: Sequence[Record],
    looks: Mapping[str, tuple[str, str]],
    key: str,
    unit: float,
    label: str,
) -> None:
    """Draw one panel: robust accuracy against `key` in `unit`."""
    for split in ("validation", "test"):
        for method, (colour, marker) in looks.items():
            rows = sorted(
                (row for row in points if row["method"] == method and row["split"] == split),
                key=lambda row: float(row[key]),
            )
            if not rows:
                continue
            x = [row[key] / unit for row in rows]
            y = [100 * row["robust"] for row in rows]
            if split == "test":
                low = [100 * (row["robust"] - row["low"]) for row in rows]
                high = [100 * (row["high"] - row["robust"]) for row in rows]
                axes.errorbar(
                    x, y, (low, high), fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.5, zorder=2
                )
            axes.plot(
                x,
                y,
                marker=marker,
                markersize=9 if method == "original" else 5.5,
                color=colour,
                markerfacecolor=colour if split == "test" else "white",
                linestyle=("-" if split == "test" else ":") if not _is_baseline(method, points) else "",
                linewidth=1.0,
                zorder=3,
            )
            for row, at, height in zip(rows, x, y, strict=True):
                if row.get("chosen") and split == "test":
                    axes.plot([at], [height], "o", markersize=13, markerfacecolor="none", color=style.GREY)
    axes.margins(y=0.1)
    axes.set_xlim(0, 1.08 * max(point[key] / unit for point in points))
    axes.set_xlabel(label)
