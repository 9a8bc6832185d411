"""Draw the figures that a study's analysis has data for, with captions that say what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from robust_nas import figures
from robust_nas.figures import study_points as of
from robust_nas.figures.study_factors import busiest_factors
from robust_nas.spaces.rules import ROBUSTSCALING_DEPTH_SHARE, WD_RANGE

METRIC = {"stable": "stability"}  # a response's name in `metrics`, where it differs
PUBLISHED = {
    "r_d": (ROBUSTSCALING_DEPTH_SHARE, ROBUSTSCALING_DEPTH_SHARE, "Huang, Lu, Deb and Boddeti 2023"),
    "wd_ratio": (*WD_RANGE, "Peng et al. 2023, by a third party's notes"),
}
_COVERED = 1 / 3  # of a heat map's cells, for it to be worth its place
_MOST = 40  # contrasts in a forest

Tree = Mapping[str, Any]


class Picture(NamedTuple):
    """A figure that was drawn: `<stem>.png`, `.svg` and `.csv` lie in the folder."""

    stem: str
    title: str
    caption: str


def draw_figures(tree: Tree, folder: Path) -> list[Picture]:
    """Draw the figures of an analysis; return them in the order of the report, without those that have no data.

    Raises:
        RunError: the folder cannot be written.
    """
    study = _Study.of(tree)
    if not study.measured:
        return []
    drawn: list[Picture] = []
    for stem, make in _FIGURES.items():
        sketch = make(study)
        if sketch is None:
            continue
        caption = f"{sketch.text} {setting(tree)}"
        sketch.plot(*sketch.values, folder / stem, caption=of.words(caption), **sketch.options)
        drawn.append(Picture(stem, sketch.title, caption))
    return drawn


class _Study(NamedTuple):
    """An analysis with the values that several figures use."""

    tree: Tree
    metric: str
    name: str  # of the metric
    points: list[Tree]
    measured: list[Tree]

    @classmethod
    def of(cls, tree: Tree) -> _Study:
        metric, points = response_of(tree), tree["points"]
        measured = [point for point in points if of.raw(point, metric)[0] is not None]
        return cls(tree, metric, of.title(metric), points, measured)


class _Sketch(NamedTuple):
    """A figure before it is drawn: its title, what its caption says, and the call that draws it."""

    title: str
    text: str
    plot: Callable[..., Any]
    values: tuple[Any, ...]
    options: dict[str, Any]


def _effects(study: _Study) -> _Sketch | None:
    rules = [
        rule
        for rule in study.tree["rules"]
        if rule.get("effect") is not None and rule.get("unit") in (None, "share")
    ]
    contrasts, family = _contrasts(study.tree)
    if not (rules or contrasts):
        return None
    level = _level(study.tree)
    text = f"Effects on {study.name} in percentage points, {level}. Above: rules. Below: {family}."
    return _Sketch("Effects", text, figures.plot_study_effects, (rules, contrasts), {})


def _budgets(study: _Study) -> _Sketch:
    text = (
        f"{study.name.capitalize()} against both budgets, {_level(study.tree)}. #1 is the configuration with the best "
        "mean, as in the table; a name or number is left out where it has no room."
    )
    options = {
        "reference": study.tree.get("reference"),
        "uniform": [str(point["name"]) for point in study.points if is_uniform(point)],
        "response": study.metric,
    }
    return _Sketch("Against the budgets", text, figures.plot_study_budgets, (study.points,), options)


def _curve(study: _Study) -> _Sketch | None:
    along = _along(study.tree, study.points)
    if along is None:
        return None
    optimum = study.tree.get("optimum")
    held = f" at {of.title(optimum['budget'])} that count as equal" if optimum else ""
    text = f"{study.name.capitalize()} along {of.title(along)}{held}, {_level(study.tree)}."
    points = [p for p in study.points if not optimum or p["name"] in optimum.get("points", [p["name"]])]
    options = {
        "along": along,
        "optimum": optimum,
        "published": PUBLISHED.get(along),
        "response": study.metric,
    }
    return _Sketch(f"Along {of.title(along)}", text, figures.plot_study_curve, (points,), options)


def _heat_map(study: _Study) -> _Sketch | None:
    factors = busiest_factors(study.points)[:2]
    if not _covered(study.measured, factors):
        return None
    down, across = factors
    text = (
        f"Mean {study.name} over {down} and {across}; in brackets the configurations of a cell with several."
    )
    options = {
        "factors": tuple(factors),
        "reference": study.tree.get("reference"),
        "response": study.metric,
    }
    return _Sketch(f"Over {down} and {across}", text, figures.plot_study_heat_map, (study.points,), options)


def _stages(study: _Study) -> _Sketch | None:
    if not any(point.get("stages") for point in study.points):
        return None
    text = f"Share of each stage in parameters and MACs, sorted by {study.name} ({_level(study.tree)})."
    options = {"response": study.metric}
    return _Sketch("Where the capacity sits", text, figures.plot_study_stages, (study.points,), options)


def _seeds(study: _Study) -> _Sketch:
    text = "A mark for each training; the bar is the mean over seeds."
    return _Sketch("Seeds", text, figures.plot_study_seeds, (study.points,), {"response": study.metric})


def _lipschitz(study: _Study) -> _Sketch | None:
    if not any(any(p["lip_stages"].values()) for p in study.points if p.get("lip_stages")):
        return None
    text = (
        "Natural logarithm of each stage's gain under the attack, mean over images and seeds; the gains add up to "
        "the whole network's. Lines span the seeds. The gains of wider stages are not divided by their dimension."
    )
    options = {"response": study.metric}
    return _Sketch("Gain by stage", text, figures.plot_study_lipschitz, (study.points,), options)


def _learning(study: _Study) -> _Sketch | None:
    if not any(curve.get("epochs") for point in study.points for curve in point.get("curves") or ()):
        return None
    text = "Mean over seeds by epoch; with up to seven configurations the band spans the seeds. Validation split."
    options = {"response": study.metric}
    return _Sketch("Learning curves", text, figures.plot_study_learning, (study.points,), options)


def _inherited(study: _Study) -> _Sketch | None:
    inherited = study.tree.get("inherited")
    if not (inherited or {}).get("pairs"):
        return None
    text = "Each architecture scored with weights inherited from the supernet, and trained alone."
    options = {"numbers": of.numbers(study.points, study.metric)}
    return _Sketch("Inherited weights", text, figures.plot_study_inherited, (inherited,), options)


_FIGURES: dict[str, Callable[[_Study], _Sketch | None]] = {
    "effects": _effects,
    "budgets": _budgets,
    "curve": _curve,
    "heat-map": _heat_map,
    "stages": _stages,
    "seeds": _seeds,
    "lipschitz": _lipschitz,
    "learning": _learning,
    "inherited": _inherited,
}
STEMS = tuple(_FIGURES)


def response_of(tree: Tree) -> str:
    """Return the key of the study's response in the metrics of a point."""
    response = str(tree["response"])
    return METRIC.get(response, response)


def setting(tree: Tree) -> str:
    """Return the sentence that every caption ends with: attacks, budget, images, seeds."""
    threat, data = tree["threat_model"], tree["data"]
    seeds = ", ".join(map(str, tree["seeds"]))
    return (
        f"{', '.join(map(str, tree['attacks']))}; {threat['norm']} eps {threat['eps']:.4g}; {data['images']:,} "
        f"test images of {data['dataset']}; {'seeds' if len(tree['seeds']) > 1 else 'seed'} {seeds}."
    )


def is_uniform(point: Tree) -> bool:
    """Return whether all stages have one depth and one widening factor (channels that double from stage to stage)."""
    depths, channels = stage_numbers(point, "depths"), stage_numbers(point, "widths")
    widths = {channel / 2**stage for stage, channel in enumerate(channels)}
    return len(depths) > 1 and len(set(depths)) == 1 and len(widths) == 1


def stage_numbers(point: Tree, key: str) -> list[float]:
    """Return `depths.0`, `depths.1`, ... (or widths) of a point's factors, as far as they are known."""
    factors: Mapping[str, Any] = point.get("factors") or {}
    found: list[float] = []
    while f"{key}.{len(found)}" in factors:
        found.append(factors[f"{key}.{len(found)}"])
    return found


def _level(tree: Tree) -> str:
    return f"{100 * tree['confidence']:g}% intervals over seeds and images"


def _contrasts(tree: Tree) -> tuple[list[Tree], str]:
    """Return the declared contrasts, else the clearest exploratory ones, and their family in words."""
    for family in ("declared", "exploratory"):
        found = [c for c in tree["contrasts"] if c["family"] == family and c.get("effect") is not None]
        if found:
            clearest = sorted(found, key=lambda c: 1.0 if c["p"] is None else c["p"])[:_MOST]
            more = f", the {_MOST} clearest of {len(found)}" if len(found) > _MOST else ""
            return [c for c in found if c in clearest], f"{family} contrasts{more}"
    return [], "no contrasts"


def _along(tree: Tree, points: list[Tree]) -> str | None:
    """Return the factor of the optimum, or the one numeric factor that varies where only one does."""
    if tree.get("optimum"):
        return str(tree["optimum"]["along"])
    varied = busiest_factors(points)
    if len(varied) == 1 and all(not isinstance(p["factors"].get(varied[0]), str) for p in points):
        return varied[0]
    return None


def _covered(measured: list[Tree], factors: list[str]) -> bool:
    if len(factors) < 2:
        return False
    places = {tuple(point["factors"].get(key) for key in factors) for point in measured}
    down, across = ({place[i] for place in places} for i in (0, 1))
    return len(down) > 1 and len(across) > 1 and len(places) >= _COVERED * len(down) * len(across)
