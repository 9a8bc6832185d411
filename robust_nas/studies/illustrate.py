"""Which figures a study's analysis has the data for, drawn into a folder with captions that say what was measured."""

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
STEMS = (
    "effects",
    "budgets",
    "curve",
    "heat-map",
    "stages",
    "seeds",
    "lipschitz",
    "learning",
    "inherited",
)
_COVERED = 1 / 3  # of a heat map's cells, for it to be worth its place
_MOST = 40  # contrasts in a forest

Tree = Mapping[str, Any]


class Picture(NamedTuple):
    """A figure that was drawn: `<stem>.png`, `.svg` and `.csv` lie in the folder."""

    stem: str
    title: str
    caption: str


def draw_figures(tree: Tree, folder: Path) -> list[Picture]:
    """The figures of an analysis, in the order of the report; those without data are left out.

    Raises:
        RunError: the folder cannot be written.
    """
    metric = response_of(tree)
    points, reference = tree["points"], tree.get("reference")
    measured = [point for point in points if of.raw(point, metric)[0] is not None]
    if not measured:
        return []
    numbers = of.numbers(points, metric)
    drawn: list[Picture] = []

    def draw(
        stem: str, title: str, said: str, plot: Callable[..., Any], *values: Any, **options: Any
    ) -> None:
        caption = f"{said} {setting(tree)}"
        plot(*values, folder / stem, caption=of.words(caption), **options)
        drawn.append(Picture(stem, title, caption))

    common = {"response": metric}
    name = of.title(metric)
    rules = [
        rule
        for rule in tree["rules"]
        if rule.get("effect") is not None and rule.get("unit") in (None, "share")
    ]
    contrasts, family = _contrasts(tree)
    if rules or contrasts:
        said = f"Effects on {name} in percentage points, {_level(tree)}. Above: rules. Below: {family}."
        draw("effects", "Effects", said, figures.plot_study_effects, rules, contrasts)
    said = (
        f"{name.capitalize()} against both budgets, {_level(tree)}. #1 is the configuration with the best mean, as in "
        "the table; a name or number is left out where it has no room."
    )
    uniform = [str(point["name"]) for point in points if is_uniform(point)]
    draw(
        "budgets",
        "Against the budgets",
        said,
        figures.plot_study_budgets,
        points,
        reference=reference,
        uniform=uniform,
        **common,
    )
    along = _along(tree, points)
    if along is not None:
        optimum = tree.get("optimum")
        held = f" at {of.title(optimum['budget'])} that count as equal" if optimum else ""
        said = f"{name.capitalize()} along {of.title(along)}{held}, {_level(tree)}."
        draw(
            "curve",
            f"Along {of.title(along)}",
            said,
            figures.plot_study_curve,
            [p for p in points if not optimum or p["name"] in optimum.get("points", [p["name"]])],
            along=along,
            optimum=optimum,
            published=PUBLISHED.get(along),
            **common,
        )
    if _covered(measured, factors := busiest_factors(points)[:2]):
        said = f"Mean {name} over {factors[0]} and {factors[1]}; in brackets the configurations of a cell with several."
        draw(
            "heat-map",
            f"Over {factors[0]} and {factors[1]}",
            said,
            figures.plot_study_heat_map,
            points,
            factors=tuple(factors),
            reference=reference,
            **common,
        )
    if any(point.get("stages") for point in points):
        said = f"Share of each stage in parameters and MACs, sorted by {name} ({_level(tree)})."
        draw("stages", "Where the capacity sits", said, figures.plot_study_stages, points, **common)
    said = "A mark for each training; the bar is the mean over seeds."
    draw("seeds", "Seeds", said, figures.plot_study_seeds, points, **common)
    if any(any(point["lip_stages"].values()) for point in points if point.get("lip_stages")):
        said = (
            "Natural logarithm of each stage's gain under the attack, mean over images and seeds; the gains add up to "
            "the whole network's. Lines span the seeds. The gains of wider stages are not divided by their dimension."
        )
        draw("lipschitz", "Gain by stage", said, figures.plot_study_lipschitz, points, **common)
    if any(curve.get("epochs") for point in points for curve in point.get("curves") or ()):
        said = "Mean over seeds by epoch; with up to seven configurations the band spans the seeds. Validation split."
        draw("learning", "Learning curves", said, figures.plot_study_learning, points, **common)
    if (tree.get("inherited") or {}).get("pairs"):
        said = "Each architecture scored with weights inherited from the supernet, and trained alone."
        draw(
            "inherited",
            "Inherited weights",
            said,
            figures.plot_study_inherited,
            tree["inherited"],
            numbers=numbers,
        )
    return drawn


def response_of(tree: Tree) -> str:
    """The key of the study's response in the metrics of a point."""
    response = str(tree["response"])
    return METRIC.get(response, response)


def setting(tree: Tree) -> str:
    """The sentence that every caption ends with: attacks, budget, images, seeds."""
    threat, data = tree["threat_model"], tree["data"]
    seeds = ", ".join(map(str, tree["seeds"]))
    return (
        f"{', '.join(map(str, tree['attacks']))}; {threat['norm']} eps {threat['eps']:.4g}; {data['images']:,} "
        f"test images of {data['dataset']}; {'seeds' if len(tree['seeds']) > 1 else 'seed'} {seeds}."
    )


def is_uniform(point: Tree) -> bool:
    """Whether all stages have one depth and one widening factor (channels that double from stage to stage)."""
    depths, channels = stage_numbers(point, "depths"), stage_numbers(point, "widths")
    widths = {channel / 2**stage for stage, channel in enumerate(channels)}
    return len(depths) > 1 and len(set(depths)) == 1 and len(widths) == 1


def stage_numbers(point: Tree, key: str) -> list[float]:
    """`depths.0`, `depths.1`, ... (or widths) of a point's factors, as far as they are known."""
    factors: Mapping[str, Any] = point.get("factors") or {}
    found: list[float] = []
    while f"{key}.{len(found)}" in factors:
        found.append(factors[f"{key}.{len(found)}"])
    return found


def _level(tree: Tree) -> str:
    return f"{100 * tree['confidence']:g}% intervals over seeds and images"


def _contrasts(tree: Tree) -> tuple[list[Tree], str]:
    """The declared contrasts, else the exploratory ones that are clearest, and what they are."""
    for family in ("declared", "exploratory"):
        found = [c for c in tree["contrasts"] if c["family"] == family and c.get("effect") is not None]
        if found:
            clearest = sorted(found, key=lambda c: 1.0 if c["p"] is None else c["p"])[:_MOST]
            more = f", the {_MOST} clearest of {len(found)}" if len(found) > _MOST else ""
            return [c for c in found if c in clearest], f"{family} contrasts{more}"
    return [], "no contrasts"


def _along(tree: Tree, points: list[Tree]) -> str | None:
    """The factor of the optimum, or the one numeric factor that varies where only one does."""
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
