"""Write the report of a study: one HTML page that opens offline, and the tidy table, both from the analysis tree.

Nothing is computed here beyond units and order: the numbers are the tree's. Every text of the tree is
escaped on its way into the page, as names come from files that others may have written.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from robust_nas.errors import RunError
from robust_nas.figures import Drawn, Figure
from robust_nas.figures import study_points as of
from robust_nas.figures.study_figure import is_uniform, response_of, stage_numbers
from robust_nas.run_folder import write_atomic
from robust_nas.studies.report.illustrate import illustrate
from robust_nas.workflows.report.blocks import flat
from robust_nas.workflows.report.page import environment, inline
from robust_nas.workflows.report.part import Live

REPORT, FIGURES = "report.html", "figures"
_TEMPLATE = "study.html.j2"
_FURTHER = ("lip_adv", "average_sensitivity", "robust_gap")  # in the page; the others are in the table

Tree = Mapping[str, Any]


def write_report(tree: Tree, folder: Path, own: Iterable[Figure] = (), live: Live | None = None) -> Path:
    """Draw the figures into `<folder>/figures` and write `<folder>/report.html`; return the page's path.

    `live`: the study works, and the page is read again. Equal trees give equal bytes.

    Raises:
        RunError: the folder cannot be written.
    """
    pictures = illustrate(tree, folder / FIGURES, own)
    path = folder / REPORT
    write_atomic(path, page(tree, folder / FIGURES, pictures, live).encode())
    return path


def page(tree: Tree, figures: Path, pictures: Iterable[Drawn] = (), live: Live | None = None) -> str:
    """Return the page's text, with the SVG of each picture in `figures` inside it."""
    metric = response_of(tree)
    shown = [
        {
            "title": each.title,
            "caption": each.caption,
            "stem": each.stem,
            "svg": _drawing(figures / f"{each.stem}.svg", each.stem),
        }
        for each in pictures
    ]
    ranked = of.ranked(tree["points"], metric)
    reference = next((p for p in tree["points"] if p["name"] == tree.get("reference")), None)
    return (
        _environment()
        .get_template(_TEMPLATE)
        .render(
            tree=tree,
            live=live,
            answer=answer_of(tree, ranked, metric),
            rows=[_row(place, point, reference, tree) for place, point in enumerate(ranked, 1)],
            reference=reference,
            metrics=_further(tree["points"]),
            recipe=list(flat(tree["recipe"])),
            figures=shown,
            comparable=tree.get("size") not in ("ci", "small"),
            response=of.title(metric),
            at_chance=[point for point in tree["points"] if point.get("at_chance")],
            checks=list(
                dict.fromkeys(check["rule"] for point in tree["points"] for check in point.get("rules") or ())
            ),
        )
    )


def _drawing(path: Path, stem: str) -> str:
    """Return the element of a figure, or why it is not shown."""
    try:
        return inline(path, stem)
    except RunError as error:
        return f"Not shown: {error}"


def answer_of(tree: Tree, ranked: Sequence[Tree], metric: str) -> str:
    """Return which configuration is best, and how many contrasts of the response are significant, as one sentence."""
    above = [point for point in ranked if not point.get("at_chance") and point["metrics"].get(metric)]
    if not above:
        return "No configuration is shown to be above chance: nothing is concluded."
    best, alpha = above[0], 1 - float(tree["confidence"])
    value = best["metrics"][metric]["mean"]
    shown = _percent(value) + " %" if metric in of.SHARES else f"{value:.3g}"
    contrasts = [c for c in tree["contrasts"] if c["response"] == metric and not c.get("undecided")]
    judged = [
        p for c in contrasts for p in [c["p"] if c.get("p_holm") is None else c["p_holm"]] if p is not None
    ]
    significant = sum(p < alpha for p in judged)
    differences = (
        "no difference was tested"
        if not judged
        else "the one difference that was tested is not significant"
        if len(judged) == 1 and not significant
        else "the one difference that was tested is significant"
        if len(judged) == 1
        else f"none of the {len(judged)} differences that were tested is significant"
        if not significant
        else f"{significant} of the {len(judged)} differences that were tested are significant"
    )
    return f"{best['name']} has the highest {of.title(metric)}, {shown}; {differences} (Holm's p below {alpha:.2g})."


def table_csv(tree: Tree) -> str:
    """Return a CSV with a row for each trial: configuration, seed, state, sizes, factors, metrics (accuracies: shares).

    Trials without a result have a state other than `done` and no metrics. `at_chance` says which accuracy of the
    configuration is not above chance, where one is not.
    """
    points = tree["points"]
    factors = list(
        dict.fromkeys(key for p in points for key in p.get("factors") or {} if key not in ("params", "macs"))
    )
    metrics = list(dict.fromkeys(key for p in points for key in p["metrics"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "arm", "seed", "state", "params", "macs", *factors, *metrics, "at_chance"])
    for point in points:
        known = [(point.get("factors") or {}).get(key) for key in factors]
        size = [point["params"], point["macs"]]
        for place, seed in enumerate(point["seeds"]):
            values = [(point["metrics"].get(key) or {}).get("values") or () for key in metrics]
            row = [value[place] if place < len(value) else None for value in values]
            writer.writerow(
                [point["name"], point["arm"], seed, "done", *size, *known, *row, point.get("at_chance")]
            )
        for trial in tree["unfinished"]:
            if trial["name"] == point["name"]:
                empty = [None] * (len(metrics) + 1)
                writer.writerow(
                    [point["name"], point["arm"], trial["seed"], trial["state"], *size, *known, *empty]
                )
    return text.getvalue()


def _row(place: int, point: Tree, reference: Tree | None, tree: Tree) -> dict[str, Any]:
    depths, widths = stage_numbers(point, "depths"), stage_numbers(point, "widths")
    factors = point.get("factors") or {}
    shape = (
        ("D", "-".join(f"{d:g}" for d in depths) or _plain(factors.get("depth"))),
        ("W", "-".join(f"{w:g}" for w in widths) or _plain(factors.get("width"))),
    )
    return {
        "number": place,
        "point": point,
        "reference": reference is point,
        "uniform": is_uniform(point),
        "shape": ", ".join(f"{letter} {text}" for letter, text in shape if text),
        "ratios": {
            b: point[b] / reference[b] if reference and reference[b] else None for b in ("params", "macs")
        },
        "checks": {check["rule"]: check for check in point.get("rules") or ()},
        "planned": len(point["seeds"]) + sum(trial["name"] == point["name"] for trial in tree["unfinished"]),
    }


def _further(points: Iterable[Tree]) -> list[str]:
    """Return the metrics besides accuracies that the page shows and some configuration has."""
    found = dict.fromkeys(
        key for p in points for key, value in p["metrics"].items() if (value or {}).get("mean") is not None
    )
    return [key for key in _FURTHER if key in found]


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"  # noqa: RUF001


def _signed(value: float | None, unit: str | None = "share") -> str:
    if value is None:
        return "–"  # noqa: RUF001
    if unit in (None, "share"):
        return f"{100 * value:+.2f}"
    return f"{value:+.2f}" if unit == "tau" else f"{value:.3g}"


def _size(value: float | None) -> str:
    """Return 1234567 as 1.23 M."""
    if value is None:
        return "–"  # noqa: RUF001
    scale, letter = of.unit([value])
    digits = 0 if scale == 1 else 2 if value / scale < 10 else 1 if value / scale < 100 else 0
    return f"{value / scale:.{digits}f} {letter}".strip()


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"  # noqa: RUF001
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"  # noqa: RUF001


def _between(metric: Tree | None, key: str) -> str:
    """Return the interval of a metric as text, and its kind where it is not the one over seeds and images."""
    metric = metric or {}

    def show(value: float) -> str:
        return f"{100 * value:.1f}" if key in of.SHARES else f"{value:.3g}"

    values = [value for value in metric.get("values") or () if value is not None]
    if metric.get("interval"):
        low, high = metric["interval"]
        return f"[{show(low)}, {show(high)}]"
    if len(values) > 1:
        return f"seeds {show(min(values))} to {show(max(values))}"
    if metric.get("image_interval"):
        low, high = metric["image_interval"]
        return f"images only [{show(low)}, {show(high)}]"
    return ""


@cache
def _environment() -> Environment:
    found = environment(Path(__file__).parent).overlay()
    found.globals = {**found.globals, "shares": of.SHARES}
    found.filters = {
        **found.filters,
        **{"percent": _percent, "signed": _signed, "size": _size, "duration": _time, "p": _p},
        **{"between": _between, "called": of.TITLES.get},
    }
    return found
