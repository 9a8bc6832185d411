"""Judge "more parameters do not always help" (Huang et al., 2021, abstract). How it is decided is our choice.

Supported where a larger model is significantly worse than a smaller one (Holm over all such pairs); contradicted where
none is, and tau and slope of the response on params are both significantly above 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

from robust_nas.statistics import Contrast, Trend, contrasts, holm, trend, with_equivalence
from robust_nas.studies.rules.evidence import ONE_SEED, Evidence, Status, count_cases, format_evidence
from robust_nas.studies.rules.rule import Rule, RuleVerdict

LARGER = 1.05  # params ratio from which a model counts as larger
MOST_PAIRS = 2000  # beyond, every second, third, ... of them is compared


class MoreParams(Rule):
    """More parameters do not always help."""

    statement = "More parameters do not necessarily help robustness."
    source = "Huang et al., NeurIPS 2021 (arXiv 2110.03825), abstract"
    factors = ("params",)
    name: Literal["more_params"] = "more_params"

    def judge(self, evidence: Evidence) -> list[RuleVerdict]:
        """Return the verdict over all pairs of a larger and a smaller model."""
        moved = trend(
            evidence.points,
            "params",
            evidence.key,
            evidence.confidence,
            draws=evidence.draws,
            rng=evidence.rng(),
        )
        ranked = sorted(evidence.points, key=lambda point: point.number("params"))
        pairs = [
            (large, small)
            for small, large in combinations(ranked, 2)
            if large.number("params") >= LARGER * small.number("params")
        ]
        pairs = pairs[:: -(-len(pairs) // MOST_PAIRS) or 1]
        each = (
            contrasts(pairs, evidence.key, evidence.points, evidence.confidence, "exploratory")
            if pairs
            else []
        )
        compared = with_equivalence(holm(each), evidence.margin)
        worse = [pair for pair in compared if pair.effect < 0 and _p_holm(pair) <= evidence.alpha]
        status, reason = _status(evidence, moved, compared, worse)
        return [
            self.verdict(
                status=status,
                effect=moved.tau,
                interval=moved.interval,
                unit="tau",
                n=count_cases(evidence.points),
                held="nothing: configurations of all sizes are compared",
                reason=reason,
                comparisons=tuple(worse),
            )
        ]


def _status(
    evidence: Evidence, moved: Trend, compared: Sequence[Contrast], worse: Sequence[Contrast]
) -> tuple[Status, str]:
    confidence = evidence.confidence
    if not compared:
        return "undecided", f"no two configurations differ by {LARGER - 1:.0%} in parameters"
    if not any(pair.includes_seeds for pair in compared):
        return "undecided", ONE_SEED
    if worse:
        first = min(worse, key=_p_holm)
        found = format_evidence(first.effect, first.interval, "share", confidence)
        return "supported", (
            f"{len(worse)} of {len(compared)} larger models are significantly worse than a smaller one (Holm), such as "
            f"{first.a} against {first.b}: {found}"
        )
    rising = moved.interval is not None and moved.interval[0] > 0 and moved.p <= evidence.alpha
    if rising and moved.slope is not None and moved.slope.interval[0] > 0:
        gain = format_evidence(moved.slope.slope, moved.slope.interval, "share", confidence)
        return "contradicted", (
            f"the response rises with params over this range ({gain} per doubling) and no larger model is worse"
        )
    tau = f"{format_evidence(moved.tau, moved.interval, 'tau', confidence)}, p {moved.p:.2g}"
    return "undecided", (
        f"no larger model is significantly worse than a smaller one, and the trend is not significant ({tau})"
    )


def _p_holm(pair: Contrast) -> float:
    return 1.0 if pair.p_holm is None else pair.p_holm
