"""Judge "a width to depth ratio of 7.5 to 13.5 is more robust" (Peng et al., BMVC 2023, by a third party's notes).

    WD     = mean of channels / blocks over all stages but the last
    effect = mean of the configurations inside the range - mean of those outside, at one budget

The claim covers configurations in general, so they are the sample: Student's t over configurations, to whose variance
that of the images is added. The decision is our choice.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from robust_nas.errors import StudyError
from robust_nas.spaces.rules import WD_RANGE as WD
from robust_nas.statistics import Effect, Estimates, Variance, effect_of, estimate
from robust_nas.studies.rules.evidence import Evidence, Status, budget_held, count_cases, verdict_of
from robust_nas.studies.rules.rule import Rule, RuleVerdict

LEAST = 4  # configurations whose scatter says anything


class WDRatio(Rule):
    """A width to depth ratio inside Peng's range is more robust."""

    statement = f"A width to depth ratio within {WD[0]} to {WD[1]} is more robust."
    source = "Peng et al., BMVC 2023; formula and range from a third party's notes"
    factors = ("wd_ratio",)
    name: Literal["wd_ratio"] = "wd_ratio"

    def judge(self, evidence: Evidence) -> list[RuleVerdict]:
        """Return the verdict on the two groups. Raises `StudyError` where one of them is empty."""
        groups = {
            budget: [point for point in evidence.same_budget(budget) if point.has_number("wd_ratio")]
            for budget in ("params", "macs")
        }
        budget = max(groups, key=lambda name: len(groups[name]))
        points = groups[budget]
        inside = np.array([WD[0] <= point.number("wd_ratio") <= WD[1] for point in points], dtype=bool)
        inner, outer = int(inside.sum()), int((~inside).sum())
        if not (inner and outer):
            raise StudyError(
                f"rule {self.label!r}: {inner} points inside and {outer} outside {WD} at equal {budget} "
                "(within 10 %); needed: both"
            )
        estimates = estimate(points, evidence.key)
        weights = np.where(inside, 1 / inner, -1 / outer)
        effect, interval = float(weights @ estimates.means), None
        status: Status = "undecided"
        reason = f"{inner} configurations inside and {outer} outside; needed: {LEAST} or more to see how they scatter"
        if len(points) >= LEAST:
            found = _between_groups(estimates, inside, evidence.confidence)
            effect, interval = found.effect, found.interval
            claim = f"{inner} configurations inside {WD} minus {outer} outside"
            status, reason = verdict_of(evidence, found, claim)
        return [
            self.verdict(
                status=status,
                effect=effect,
                interval=interval,
                n=count_cases(points),
                about=points,
                held=budget_held(points, budget),
                reason=reason,
            )
        ]


def _between_groups(estimates: Estimates, inside: NDArray[np.bool_], confidence: float) -> Effect:
    """Return the effect with Student's interval over configurations."""
    inner, outer, P = int(inside.sum()), int((~inside).sum()), len(inside)
    weights = np.where(inside, 1 / inner, -1 / outer)
    spread = sum(
        float(((part - part.mean()) ** 2).sum())
        for part in (estimates.means[inside], estimates.means[~inside])
    )
    scatter = spread / (P - 2) * (1 / inner + 1 / outer)
    image = estimates.variance(weights).image
    degrees = (P - 2) * ((scatter + image) / scatter) ** 2 if scatter else math.inf
    several = bool(estimates.degrees.sum())
    shift = float(weights @ estimates.means)
    return effect_of(shift, Variance(scatter, image, degrees, True), confidence, several, True)
