"""Judge "under one budget there is an optimal configuration" (Huang et al., 2021, abstract).

Supported where the response has its maximum inside the range of the last stage's shares (`statistics/optima.py`);
contradicted where an end is significantly above every other configuration, or where the best inside and both ends are
equal within the margin. Of params and MACs the budget is held that more configurations share. Our choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from robust_nas.errors import StudyError
from robust_nas.statistics import Estimates, Measurements, Optimum, estimate, interior_optimum, linear_effect
from robust_nas.studies.rules.evidence import (
    ONE_SEED,
    Evidence,
    Status,
    budget_held,
    count_cases,
    format_evidence,
    ratios,
)
from robust_nas.studies.rules.rule import Rule, RuleVerdict


class IsoOptimum(Rule):
    """Under one budget there is an optimal share of the last stage."""

    statement = (
        "Under the same budget there is an optimal configuration: a share of the last stage inside the range."
    )
    source = "Huang et al., NeurIPS 2021 (arXiv 2110.03825), abstract"
    name: Literal["iso_optimum"] = "iso_optimum"

    def judge(self, evidence: Evidence) -> list[RuleVerdict]:
        """Return the verdict on the optimum. Raises `StudyError` for fewer than 4 shares at one budget."""
        groups = {budget: evidence.same_budget(budget) for budget in ("params", "macs")}
        budget = max(groups, key=lambda name: len(groups[name]))
        share = f"last_stage_{budget}_share"
        points = [point for point in groups[budget] if point.has_number(share)]
        if len({point.number(share) for point in points}) < 4:
            raise StudyError(
                f"rule {self.label!r}: {len(points)} points with equal {budget} (within 10 %); "
                f"needed: 4 or more with different {share!r}"
            )
        if not any(len(point.seeds) > 1 for point in points):
            return [
                self.verdict(
                    status="undecided",
                    n=count_cases(points),
                    about=points,
                    held=ratios(points),
                    reason=ONE_SEED,
                )
            ]
        found = interior_optimum(
            share, points, evidence.key, budget, evidence.confidence, draws=evidence.draws, rng=evidence.rng()
        )
        status, reason = _status(evidence, found, points)
        least = min(found.drops, key=lambda drop: drop.effect)
        return [
            self.verdict(
                status=status,
                effect=least.effect,
                interval=least.interval,
                n=count_cases(points),
                about=points,
                held=budget_held(points, budget),
                reason=reason,
                optimum=found,
            )
        ]


def _status(evidence: Evidence, found: Optimum, points: Sequence[Measurements]) -> tuple[Status, str]:
    place = format_evidence(found.location, found.interval, "of " + found.along, evidence.confidence)
    p = ", ".join(f"{value:.3g}" for value in found.p_ends)
    if found.interior:
        return (
            "supported",
            f"{found.top} is significantly above both ends (Holm p {p}); maximum of the fit at {place}",
        )
    estimates = estimate(points, evidence.key)
    for end in found.ends:
        others = [name for name in estimates.names if name != end]
        if max(_p_above(evidence, estimates, end, name) for name in others) <= evidence.alpha:
            return "contradicted", f"the end {end} is significantly above every other configuration"
    margin = evidence.margin
    if margin is not None and all(drop.within(margin) <= evidence.alpha for drop in found.drops):
        equal = f"equal within the margin of {100 * margin:.2f} pp (two one-sided tests)"
        return "contradicted", f"the best inside, {found.top}, and both ends are {equal}"
    return (
        "undecided",
        f"{found.top} is not significantly above both ends (p {p}, corrected for its choice as the best, which the "
        f"interval is not); maximum of the fit at {place}",
    )


def _p_above(evidence: Evidence, estimates: Estimates, name: str, other: str) -> float:
    """Return the one-sided p value of "`name` is not above `other`"."""
    weights = np.zeros(len(estimates.names))
    weights[estimates.index(name)], weights[estimates.index(other)] = 1, -1
    return linear_effect(estimates, weights, evidence.confidence).one_sided()
