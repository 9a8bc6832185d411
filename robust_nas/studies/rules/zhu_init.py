"""Judge "depth raises sensitivity more under He and NTK than under LeCun initialisation" (Zhu et al., NeurIPS 2022).

Per initialisation the least squares slope of log2(average sensitivity) on log2(depth), and on log2(width) where that
varies; the mean slope of the others minus LeCun's, with the seeds' variance (a linear model with interaction, its error
that of seeds). By the abstract; both terms as this package defines them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from robust_nas.errors import StudyError
from robust_nas.statistics import Measurements, estimate, factor_values, linear_effect
from robust_nas.studies.rules.evidence import Evidence, count_cases, format_evidence, verdict_of
from robust_nas.studies.rules.rule import Rule, RuleVerdict

KEY = "average_sensitivity"
UNIT = "log2 sensitivity per doubling of depth"


class ZhuInit(Rule):
    """Depth raises sensitivity more under He and NTK than under LeCun initialisation."""

    statement = "Depth raises average sensitivity more under He and NTK initialisation than under LeCun's."
    source = "Zhu et al., NeurIPS 2022, abstract; both terms as this package defines them"
    metrics = (KEY,)
    factors = ("depth", "initialisation")
    name: Literal["zhu_init"] = "zhu_init"

    def judge(self, evidence: Evidence) -> list[RuleVerdict]:
        """Return the verdict on the slopes. Raises `StudyError` without LeCun and another, each at 2 or more depths."""
        groups: dict[str, list[Measurements]] = {}
        for point in evidence.points:
            groups.setdefault(str(point.factors.get("initialisation")), []).append(point)
        usable = {name: part for name, part in groups.items() if len({p.number("depth") for p in part}) > 1}
        others = sorted(name for name in usable if name != "lecun" and name != "None")
        if "lecun" not in usable or not others:
            found = {name: sorted({p.number("depth") for p in part}) for name, part in groups.items()}
            raise StudyError(
                f"rule {self.label!r} needs 'initialisation' lecun and another, each at 2 or more depths; "
                f"depths found: {found}"
            )
        points = [point for name in ("lecun", *others) for point in usable[name]]
        estimates = estimate([self._logged(point) for point in points], KEY)
        weights = np.zeros(len(points))
        slopes = []
        for name in ("lecun", *others):
            own = np.array([point.factors["initialisation"] == name for point in points])
            slope = np.zeros(len(points))
            slope[own] = _depth_slope(usable[name])
            weights += slope * (-1 if name == "lecun" else 1 / len(others))
            each = linear_effect(estimates, slope, evidence.confidence)
            shown = format_evidence(each.effect, each.interval, "log2 per doubling", evidence.confidence)
            slopes.append(f"{name} {shown}")
        effect = linear_effect(estimates, weights, evidence.confidence)
        claim = f"depth slope of {', '.join(others)} minus lecun"
        status, reason = verdict_of(evidence, effect, claim, UNIT)
        return [
            self.verdict(
                status=status,
                effect=effect.effect,
                interval=effect.interval,
                unit=UNIT,
                n=count_cases(points),
                about=points,
                held="width and recipe as designed; params and MACs grow with depth",
                reason=f"{reason} (slopes: {'; '.join(slopes)})",
            )
        ]

    def _logged(self, point: Measurements) -> Measurements:
        values = point.measures[KEY]
        if min(values) <= 0:
            raise StudyError(
                f"rule {self.label!r}: {KEY} of {point.name} is {min(values)}; needed: positive, for its logarithm"
            )
        return replace(point, measures={**point.measures, KEY: tuple(math.log2(value) for value in values)})


def _depth_slope(points: Sequence[Measurements]) -> NDArray[np.float64]:
    """Return `[P]` weights of the least squares slope on log2(depth), given log2(width) where that varies."""
    columns = [np.ones(len(points)), np.log2(factor_values(points, "depth"))]
    if all(point.has_number("width") for point in points):
        width = np.log2(factor_values(points, "width"))
        if np.ptp(width) > 0:
            columns.append(width)
    return np.asarray(np.linalg.pinv(np.column_stack(columns))[1])
