"""A forest of the rules' effects and the declared contrasts, each with its interval, about zero."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robust_nas.errors import RunError
from robust_nas.figures import study_points as of
from robust_nas.figures import style
from robust_nas.figures.series import Record
from robust_nas.figures.study_figure import StudyFigure, level, response_name

# Distinguished by shape and by colour.
STATUS = {
    "supported": ("o", style.GREEN),
    "contradicted": ("X", style.VERMILLION),
    "undecided": ("D", style.GREY),
    "different": ("s", style.BLUE),
    "equivalent": ("^", style.PURPLE),
}
_LETTERS = 46
_MOST = 40  # contrasts in a forest


class _Row(NamedTuple):
    kind: str
    label: str
    status: str
    effect: float
    low: float
    high: float


class StudyEffects(StudyFigure):
    """The effects of the rules and of the contrasts."""

    heading: ClassVar[str] = "Effects"
    file: ClassVar[str] = "effects"

    name: Literal["study-effects"] = "study-effects"

    def applies(self, record: Record) -> bool:
        """Return whether a rule or a contrast has an effect."""
        return bool(_rules(record) or _contrasts(record)[0])

    def says(self, record: Record) -> str:
        """Return what is above and what is below."""
        return (
            f"Effects on {response_name(record)} in percentage points, {level(record)}. Above: rules. "
            f"Below: {_contrasts(record)[1]}."
        )

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `rules`, and the declared or clearest `contrasts`."""
        return plot_study_effects(_rules(record), _contrasts(record)[0], stem, caption=of.words(caption))


def _rules(tree: Record) -> list[Record]:
    return [
        rule
        for rule in tree["rules"]
        if rule.get("effect") is not None and rule.get("unit") in (None, "share")
    ]


def _contrasts(tree: Record) -> tuple[list[Record], str]:
    """Return the declared contrasts, else the exploratory ones that are clearest, and the words for them."""
    for family in ("declared", "exploratory"):
        found = [c for c in tree["contrasts"] if c["family"] == family and c.get("effect") is not None]
        if found:
            clearest = sorted(found, key=lambda c: 1.0 if c["p"] is None else c["p"])[:_MOST]
            more = f", the {_MOST} clearest of {len(found)}" if len(found) > _MOST else ""
            return [c for c in found if c in clearest], f"{family} contrasts{more}"
    return [], "no contrasts"


@style.drawing()
def plot_study_effects(
    rules: Sequence[Record],
    contrasts: Sequence[Record],
    stem: Path,
    *,
    alpha: float = 0.05,
    caption: str = "",
) -> tuple[Path, ...]:
    """Draw a forest plot in percentage points, rules above and contrasts a - b below; return the paths.

    Args:
        rules: `rules` of an analysis: mappings with `rule`, `status` (supported, contradicted, undecided),
            `effect` and `interval` (differences of shares 0..1, or None). One whose `unit` is named and is not
            "share" is left out.
        contrasts: `contrasts` of an analysis: mappings with `a`, `b`, `effect`, `interval`, `p_holm` and
            `equivalent`, of the family that was declared.
        stem: where to write, without a suffix.
        alpha: a contrast with `p_holm` below it is "different".
        caption: attack, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: nothing has an effect, or the files cannot be written.
    """
    rows = [_rule(rule) for rule in rules if rule.get("unit") in (None, "share")]
    rows += [_contrast(contrast, alpha) for contrast in contrasts]
    rows = [row for row in rows if math.isfinite(row.effect)]
    if not rows:
        raise RunError(
            f"there is nothing to draw for effects: none of {len(rules)} rules and {len(contrasts)} contrasts has one"
        )
    lines = [1 + row.label.count("\n") for row in rows]
    size = 8.0 if len(rows) <= 24 else 7.0
    height = 1.5 + 0.12 * len(rows) + size * 1.35 / 72 * sum(lines)
    figure, (axes,) = style.new_figure(height=height, caption=caption)
    axes.axvline(0, color="black", linewidth=1)
    for place, row in enumerate(rows):
        _draw(axes, place, row, size)
    ends = [value for row in rows for value in (row.low, row.high, row.effect) if math.isfinite(value)]
    reach = 1.12 * max(max(map(abs, ends)), 1e-3)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=size)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("effect (percentage points)")
    between = sum(row.kind == "rule" for row in rows)
    if 0 < between < len(rows):
        axes.axhline(between - 0.5, color=style.GREY, linewidth=0.8, linestyle=":")
    handles = [
        Line2D([], [], linewidth=1.2, color=colour, marker=mark, label=status)
        for status, (mark, colour) in STATUS.items()
        if any(row.status == status for row in rows)
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    table = [
        [row.kind, row.label.replace("\n", " "), row.status]
        + [None if math.isnan(v) else v / 100 for v in (row.effect, row.low, row.high)]
        for row in rows
    ]
    return style.save(figure, stem, (["kind", "name", "status", "effect", "low", "high"], table))


def _draw(axes: Axes, place: int, row: _Row, size: float) -> None:
    mark, colour = STATUS.get(row.status, STATUS["undecided"])
    text = f"{row.effect:+.2f}"
    if math.isfinite(row.low) and math.isfinite(row.high):
        axes.hlines(place, row.low, row.high, color=colour, linewidth=1.8, zorder=2)
        text += f"  [{row.low:+.2f}, {row.high:+.2f}]"
    axes.plot(row.effect, place, linestyle="", marker=mark, markersize=6, color=colour, zorder=3)
    look: dict[str, Any] = {"va": "center", "fontsize": size, "annotation_clip": False}
    axes.annotate(
        text, (1, place), (8, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points", **look
    )


def _rule(rule: Record) -> _Row:
    return _row("rule", f"rule {rule['rule']}", str(rule.get("status")), rule)


def _contrast(contrast: Record, alpha: float) -> _Row:
    p = contrast.get("p_holm") if contrast.get("p_holm") is not None else contrast.get("p")
    status = (
        "equivalent"
        if contrast.get("equivalent")
        else "different"
        if p is not None and p < alpha
        else "undecided"
    )
    a, b = (of.name({"name": contrast[key]}, 40) for key in "ab")
    one = f"{a} - {b}"
    return _row("contrast", one if len(one) <= _LETTERS else f"{a}\n- {b}", status, contrast)


def _row(kind: str, label: str, status: str, record: Record) -> _Row:
    low, high = record.get("interval") or (None, None)
    numbers = (of.percent(value) for value in (record.get("effect"), low, high))
    label = label if "\n" in label else textwrap.fill(of.words(label), _LETTERS)
    return _Row(kind, label, status, *numbers)
