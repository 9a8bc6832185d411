"""Judge "a smaller last stage is more robust" (Huang et al., 2021, abstract). How it is decided is our choice.

    effect = mean of all configurations that differ from the reference in a smaller last stage alone - the reference

That one contrast decides; single pairs are exploratory, with Holm.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from robust_nas.errors import StudyError
from robust_nas.statistics import Measurements, contrasts, estimate, holm, linear_effect, with_equivalence
from robust_nas.studies.rules.evidence import Evidence, count_cases, ratios, verdict_of
from robust_nas.studies.rules.rule import Rule, RuleVerdict


class LastStage(Rule):
    """A smaller last stage is more robust."""

    statement = "Reducing the capacity of the last stage improves robustness."
    source = "Huang et al., NeurIPS 2021 (arXiv 2110.03825), abstract"
    factors = ("depths", "widths")
    name: Literal["last_stage"] = "last_stage"

    def judge(self, evidence: Evidence) -> list[RuleVerdict]:
        """Return the verdict on the mean of the reduced variants. Raises `StudyError` where there is none."""
        reference = evidence.reference_point(self.label)
        reduced = [point for point in evidence.points if _smaller_last_stage(point, reference)]
        if not reduced:
            raise StudyError(
                f"rule {self.label!r}: no point differs from {reference.name} by a smaller last depth or width alone; "
                "needed: points with the same `depths.*` and `widths.*` but for a smaller last one"
            )
        pool = evidence.pool([reference, *reduced])
        estimates = estimate(pool, evidence.key)
        weights = np.zeros(len(estimates.names))
        weights[[estimates.index(point.name) for point in reduced]] = 1 / len(reduced)
        weights[estimates.index(reference.name)] = -1
        effect = linear_effect(estimates, weights, evidence.confidence)
        claim = f"mean of {len(reduced)} reduced variants minus {reference.name}"
        status, reason = verdict_of(evidence, effect, claim)
        pairs = [(point, reference) for point in reduced]
        each = contrasts(pairs, evidence.key, pool, evidence.confidence, "exploratory")
        shown = ratios(reduced, reference)
        return [
            self.verdict(
                status=status,
                effect=effect.effect,
                interval=effect.interval,
                n=count_cases([reference, *reduced]),
                about=[reference, *reduced],
                held=f"nothing: params and MACs fall with the last stage ({shown} of the reference)",
                reason=reason,
                comparisons=tuple(with_equivalence(holm(each), evidence.margin)),
            )
        ]


def _smaller_last_stage(point: Measurements, reference: Measurements) -> bool:
    """Return whether all depths and widths are the reference's, but for a smaller last depth, last width, or both."""
    stages = sorted(
        {
            key
            for each in (point, reference)
            for key in each.factors
            if key.partition(".")[0] in ("depths", "widths") and key.partition(".")[2].isdigit()
        }
    )
    if not stages or not all(each.has_number(key) for key in stages for each in (point, reference)):
        return False
    last = str(max(int(key.partition(".")[2]) for key in stages))
    ends = [point.number(key) - reference.number(key) for key in stages if key.endswith(f".{last}")]
    others = [key for key in stages if not key.endswith(f".{last}")]
    same = all(point.number(key) == reference.number(key) for key in others)
    return same and all(end <= 0 for end in ends) and any(end < 0 for end in ends)
