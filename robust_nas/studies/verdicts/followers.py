"""Rules of those who followed: RobustScaling's r_D, Peng's WD ratio, Zhu's initialisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from robust_nas.errors import StudyError
from robust_nas.spaces.rules import ROBUSTSCALING_DEPTH_SHARE as R_D
from robust_nas.spaces.rules import WD_RANGE as WD
from robust_nas.statistics.components import Floats, Variance, estimate
from robust_nas.statistics.contrasts import effect_of, linear_effect
from robust_nas.statistics.optima import interior_optimum
from robust_nas.studies.points import Point, factor_values
from robust_nas.studies.verdicts.verdict import (
    Evidence,
    RuleVerdict,
    Status,
    counted,
    decided,
    one_budget,
    ratios,
    told,
)

FITS = 0.05  # below this p value the parabola does not describe the curve


def robustscaling(evidence: Evidence) -> list[RuleVerdict]:
    """Where the response peaks along r_D at fixed MACs, against 0.7 (Huang et al., CVPR 2023)."""
    rule = "robustscaling"
    evidence.measured(rule)
    points = [point for point in one_budget(evidence, "macs") if point.has_number("r_d")]
    values = sorted({point.number("r_d") for point in points})
    if len(values) < 4:
        raise StudyError(f"rule {rule!r}: r_D {values} at equal MACs (within 10 %); needed: 4 or more values")
    effect = interval = found = None
    status: Status = "undecided"
    if not any(len(point.seeds) > 1 for point in points):
        reason = "no configuration has two seeds, so chance of training cannot be told from effect"
    else:
        found = interior_optimum(
            "r_d", points, evidence.key, "macs", evidence.confidence, draws=evidence.draws, rng=evidence.rng()
        )
        effect, interval = found.location, found.interval
        place = told(effect, interval, "r_D", evidence.confidence)
        if not found.interior:
            p = ", ".join(f"{value:.3g}" for value in found.p_ends)
            reason = f"no significant maximum inside the range ({found.top} over both ends: Holm p {p}); fit at {place}"
        elif found.p_lack_of_fit is not None and found.p_lack_of_fit < FITS:
            reason = f"a maximum lies inside, but the parabola misses the means (p {found.p_lack_of_fit:.3g}): {place}"
        elif interval[0] <= R_D <= interval[1]:
            status, reason = "supported", f"a maximum lies inside the range, at {place}, which holds {R_D}"
        else:
            status, reason = (
                "contradicted",
                f"a maximum lies inside the range, at {place}, which excludes {R_D}",
            )
    return [
        RuleVerdict(
            rule=rule,
            statement=f"At fixed MACs robustness peaks where depth over depth and width, r_D, is near {R_D}.",
            status=status,
            effect=effect,
            interval=interval,
            unit="r_D",
            n=counted(points),
            held=f"MACs within 10 %: {ratios(points)} of the smallest",
            reason=reason,
            source="Huang, Lu, Deb and Boddeti, CVPR 2023",
            optimum=found,
        )
    ]


def wd_ratio(evidence: Evidence) -> list[RuleVerdict]:
    """The mean of the points inside Peng's range minus that of those outside, at one budget.

    The claim is of configurations in general, so they are the sample: Student's t over configurations.
    """
    rule = "wd_ratio"
    evidence.measured(rule)
    groups = {
        budget: [p for p in one_budget(evidence, budget) if p.has_number("wd_ratio")]
        for budget in ("params", "macs")
    }
    budget = max(groups, key=lambda name: len(groups[name]))
    points = groups[budget]
    inside = np.array([WD[0] <= point.number("wd_ratio") <= WD[1] for point in points], dtype=bool)
    inner, outer = int(inside.sum()), int((~inside).sum())
    if not (inner and outer):
        raise StudyError(
            f"rule {rule!r}: {inner} points inside and {outer} outside {WD} at equal {budget} (within 10 %); "
            "needed: both"
        )
    estimates = estimate(points, evidence.key)
    weights = np.where(inside, 1 / inner, -1 / outer)
    shift = float(weights @ estimates.means)
    effect = interval = None
    status: Status = "undecided"
    if len(points) < 4:
        reason = (
            f"{inner} configurations inside and {outer} outside; needed: 4 or more to see how they scatter"
        )
    else:
        spread = sum(
            float(((part - part.mean()) ** 2).sum())
            for part in (estimates.means[inside], estimates.means[~inside])
        )
        scatter = spread / (len(points) - 2) * (1 / inner + 1 / outer)
        image = estimates.variance(weights).image
        degrees = (len(points) - 2) * ((scatter + image) / scatter) ** 2 if scatter else math.inf
        several = bool(estimates.degrees.sum())
        found = effect_of(shift, Variance(scatter, image, degrees, True), evidence.confidence, several, True)
        effect, interval = found.effect, found.interval
        status, reason = decided(evidence, found, f"{inner} configurations inside {WD} minus {outer} outside")
    return [
        RuleVerdict(
            rule=rule,
            statement=f"A width to depth ratio within {WD[0]} to {WD[1]} is more robust.",
            status=status,
            effect=effect if effect is not None else shift,
            interval=interval,
            unit="share",
            n=counted(points),
            held=f"{'MACs' if budget == 'macs' else budget} within 10 %: {ratios(points)} of the smallest",
            reason=reason,
            source="Peng et al., BMVC 2023; formula and range from a third party's notes",
        )
    ]


def zhu_init(evidence: Evidence) -> list[RuleVerdict]:
    """Whether depth raises sensitivity more under He and NTK than under LeCun initialisation.

    Per initialisation the least squares slope of log2(average sensitivity) on log2(depth), and on log2(width) where
    that varies; the mean slope of the others minus LeCun's, with the seeds' variance (a linear model with
    interaction, its error that of seeds).
    """
    rule, key = "zhu_init", "average_sensitivity"
    evidence.measured(rule, key)
    groups: dict[str, list[Point]] = {}
    for point in evidence.points:
        groups.setdefault(str(point.factors.get("initialisation")), []).append(point)
    usable = {name: part for name, part in groups.items() if len({p.number("depth") for p in part}) > 1}
    others = sorted(name for name in usable if name != "lecun" and name != "None")
    if "lecun" not in usable or not others:
        found = {name: sorted({p.number("depth") for p in part}) for name, part in groups.items()}
        raise StudyError(
            f"rule {rule!r} needs 'initialisation' lecun and another, each at 2 or more depths; depths found: {found}"
        )
    points = [point for name in ("lecun", *others) for point in usable[name]]
    estimates = estimate([_logged(point, key) for point in points], key)
    weights = np.zeros(len(points))
    slopes = []
    for name in ("lecun", *others):
        own = np.array([point.factors["initialisation"] == name for point in points])
        slope = np.zeros(len(points))
        slope[own] = _depth_slope(usable[name])
        weights += slope * (-1 if name == "lecun" else 1 / len(others))
        each = linear_effect(estimates, slope, evidence.confidence)
        slopes.append(f"{name} {told(each.effect, each.interval, 'log2 per doubling', evidence.confidence)}")
    effect = linear_effect(estimates, weights, evidence.confidence)
    status, reason = decided(
        evidence,
        effect,
        f"depth slope of {', '.join(others)} minus lecun",
        "log2 sensitivity per doubling of depth",
    )
    return [
        RuleVerdict(
            rule=rule,
            statement="Depth raises average sensitivity more under He and NTK initialisation than under LeCun's.",
            status=status,
            effect=effect.effect,
            interval=effect.interval,
            unit="log2 sensitivity per doubling of depth",
            n=counted(points),
            held="width and recipe as designed; params and MACs grow with depth",
            reason=f"{reason} (slopes: {'; '.join(slopes)})",
            source="Zhu et al., NeurIPS 2022, abstract; both terms as this package defines them",
        )
    ]


def _logged(point: Point, key: str) -> Point:
    values = point.measures[key]
    if min(values) <= 0:
        raise StudyError(
            f"rule 'zhu_init': {key} of {point.name} is {min(values)}; needed: positive, for its logarithm"
        )
    return replace(point, measures={**point.measures, key: tuple(math.log2(value) for value in values)})


def _depth_slope(points: Sequence[Point]) -> Floats:
    """`[P]` weights of the least squares slope on log2(depth), with log2(width) beside it where that varies."""
    columns = [np.ones(len(points)), np.log2(factor_values(points, "depth"))]
    if all(point.has_number("width") for point in points):
        width = np.log2(factor_values(points, "width"))
        if np.ptp(width) > 0:
            columns.append(width)
    return np.asarray(np.linalg.pinv(np.column_stack(columns))[1])
