"""Huang et al. 2021 (RobustWRN): more parameters, a smaller last stage, an optimum at a budget, the ratio 1:1:0.4.

Statements are those of the abstract. How each is decided is our choice, and so is the reading of the ratio as
W = k (1, 1, 0.4) with uniform depth (the paper gives one network, WRN-34-R; the scaling is inferred).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from robust_nas.errors import StudyError
from robust_nas.statistics.components import Estimates, estimate
from robust_nas.statistics.contrasts import Contrast, contrasts, holm, linear_effect, with_equivalence
from robust_nas.statistics.optima import Optimum, interior_optimum
from robust_nas.statistics.trends import trend
from robust_nas.studies.points import Point
from robust_nas.studies.verdicts.verdict import (
    TOLERANCE,
    Evidence,
    RuleVerdict,
    Status,
    counted,
    decided,
    one_budget,
    ratios,
    told,
)

SOURCE = "Huang et al., NeurIPS 2021 (arXiv 2110.03825), abstract"
LARGER = 1.05  # params ratio from which a model counts as larger
MOST_PAIRS = 2000  # beyond, every second, third, ... of them is compared


def last_stage(evidence: Evidence) -> list[RuleVerdict]:
    """The mean of all points that differ from the reference in a smaller last stage alone, minus the reference.

    That one contrast decides; single pairs are exploratory, with Holm.
    """
    rule = "last_stage"
    evidence.measured(rule)
    reference = evidence.reference_point(rule)
    reduced = [point for point in evidence.points if _smaller_last_stage(point, reference)]
    if not reduced:
        raise StudyError(
            f"rule {rule!r}: no point differs from {reference.name} by a smaller last depth or width alone; "
            "needed: points with the same `depths.*` and `widths.*` but for a smaller last one"
        )
    estimates = estimate(evidence.points, evidence.key)
    weights = np.zeros(len(estimates.names))
    weights[[estimates.index(point.name) for point in reduced]] = 1 / len(reduced)
    weights[estimates.index(reference.name)] = -1
    effect = linear_effect(estimates, weights, evidence.confidence)
    status, reason = decided(
        evidence, effect, f"mean of {len(reduced)} reduced variants minus {reference.name}"
    )
    pairs = [(point, reference) for point in reduced]
    each = contrasts(pairs, evidence.key, evidence.points, evidence.confidence, "exploratory")
    return [
        RuleVerdict(
            rule=rule,
            statement="Reducing the capacity of the last stage improves robustness.",
            status=status,
            effect=effect.effect,
            interval=effect.interval,
            unit="share",
            n=counted([reference, *reduced]),
            held=f"nothing: params and MACs fall with the last stage ({ratios(reduced, reference)} of the reference)",
            reason=reason,
            source=SOURCE,
            comparisons=tuple(with_equivalence(holm(each), evidence.margin)),
        )
    ]


def _smaller_last_stage(point: Point, reference: Point) -> bool:
    """Whether all depths and widths are the reference's, but for a smaller last depth, last width, or both."""
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


def more_params(evidence: Evidence) -> list[RuleVerdict]:
    """Whether a larger model is significantly worse than a smaller one (Holm over all such pairs).

    Contradicted where none is, and tau and slope of the response on params are both significantly above 0.
    """
    rule = "more_params"
    evidence.measured(rule)
    moved = trend(
        evidence.points, "params", evidence.key, evidence.confidence, draws=evidence.draws, rng=evidence.rng()
    )
    ranked = sorted(evidence.points, key=lambda point: point.number("params"))
    pairs = [
        (large, small)
        for small, large in combinations(ranked, 2)
        if large.number("params") >= LARGER * small.number("params")
    ]
    pairs = pairs[:: -(-len(pairs) // MOST_PAIRS) or 1]
    each = (
        contrasts(pairs, evidence.key, evidence.points, evidence.confidence, "exploratory") if pairs else []
    )
    compared = with_equivalence(holm(each), evidence.margin)
    worse = [pair for pair in compared if pair.effect < 0 and _holm(pair) <= evidence.alpha]
    tau = f"{told(moved.tau, moved.interval, 'tau', evidence.confidence)}, p {moved.p:.2g}"
    rising = moved.interval is not None and moved.interval[0] > 0 and moved.p <= evidence.alpha
    status: Status = "undecided"
    if not pairs:
        reason = f"no two configurations differ by {LARGER - 1:.0%} in parameters"
    elif not any(pair.includes_seeds for pair in compared):
        reason = "no configuration has two seeds, so chance of training cannot be told from effect"
    elif worse:
        status = "supported"
        first = min(worse, key=_holm)
        found = told(first.effect, first.interval, "share", evidence.confidence)
        reason = (
            f"{len(worse)} of {len(pairs)} larger models are significantly worse than a smaller one (Holm), such as "
            f"{first.a} against {first.b}: {found}"
        )
    elif rising and moved.slope is not None and moved.slope.interval[0] > 0:
        status = "contradicted"
        gain = told(moved.slope.slope, moved.slope.interval, "share", evidence.confidence)
        reason = f"the response rises with params over this range ({gain} per doubling) and no larger model is worse"
    else:
        reason = f"no larger model is significantly worse than a smaller one, and the trend is not significant ({tau})"
    return [
        RuleVerdict(
            rule=rule,
            statement="More parameters do not necessarily help robustness.",
            status=status,
            effect=moved.tau,
            interval=moved.interval,
            unit="tau",
            n=counted(evidence.points),
            held="nothing: configurations of all sizes are compared",
            reason=reason,
            source=SOURCE,
            comparisons=tuple(worse),
        )
    ]


def _holm(pair: Contrast) -> float:
    return 1.0 if pair.p_holm is None else pair.p_holm


def iso_optimum(evidence: Evidence) -> list[RuleVerdict]:
    """Whether the response has its maximum inside the range of last-stage shares, at one budget.

    Of params and MACs the budget is held that more points share (within 10 % of the reference).
    """
    rule = "iso_optimum"
    evidence.measured(rule)
    groups = {budget: one_budget(evidence, budget) for budget in ("params", "macs")}
    budget = max(groups, key=lambda name: len(groups[name]))
    share = f"last_stage_{budget}_share"
    points = [point for point in groups[budget] if point.has_number(share)]
    if len({point.number(share) for point in points}) < 4:
        raise StudyError(
            f"rule {rule!r}: {len(points)} points with equal {budget} (within 10 %); "
            f"needed: 4 or more with different {share!r}"
        )
    statement = (
        "Under the same budget there is an optimal configuration: a share of the last stage inside the range."
    )
    verdict = _thin(rule, statement, points, evidence)
    if verdict is not None:
        return [verdict]
    found = interior_optimum(
        share, points, evidence.key, budget, evidence.confidence, draws=evidence.draws, rng=evidence.rng()
    )
    status, reason = _inside(evidence, found, points)
    least = min(found.drops, key=lambda drop: drop.effect)
    return [
        RuleVerdict(
            rule=rule,
            statement=statement,
            status=status,
            effect=least.effect,
            interval=least.interval,
            unit="share",
            n=counted(points),
            held=f"{'MACs' if budget == 'macs' else budget} within 10 %: {ratios(points)} of the smallest",
            reason=reason,
            source=SOURCE,
            optimum=found,
        )
    ]


def _inside(evidence: Evidence, found: Optimum, points: Sequence[Point]) -> tuple[Status, str]:
    place = told(found.location, found.interval, "of " + found.along, evidence.confidence)
    p = ", ".join(f"{value:.3g}" for value in found.p_ends)
    if found.interior:
        return (
            "supported",
            f"{found.top} is significantly above both ends (Holm p {p}); maximum of the fit at {place}",
        )
    estimates = estimate(points, evidence.key)
    for end in found.ends:
        others = [name for name in estimates.names if name != end]
        if max(_above(evidence, estimates, end, name) for name in others) <= evidence.alpha:
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


def _above(evidence: Evidence, estimates: Estimates, name: str, other: str) -> float:
    """One-sided p value of "`name` is not above `other`"."""
    weights = np.zeros(len(estimates.names))
    weights[estimates.index(name)], weights[estimates.index(other)] = 1, -1
    return linear_effect(estimates, weights, evidence.confidence).one_sided()


def _thin(rule: str, statement: str, points: Sequence[Point], evidence: Evidence) -> RuleVerdict | None:
    """An undecided verdict where no configuration has two seeds, else None."""
    if any(len(point.seeds) > 1 for point in points):
        return None
    return RuleVerdict(
        rule=rule,
        statement=statement,
        status="undecided",
        effect=None,
        interval=None,
        unit="share",
        n=counted(points),
        held=ratios(points),
        reason="no configuration has two seeds, so chance of training cannot be told from effect",
        source=SOURCE,
    )


def huang_ratio(evidence: Evidence) -> list[RuleVerdict]:
    """Points of arms named `huang`, each minus the `uniform` point nearest in the budget held: one verdict per budget.

    Arms are `huang...` and `uniform...iso-params...` or `uniform...iso-macs...`; where an arm names `huang` together
    with the budget, that one is taken, else every `huang` point.
    """
    rule = "huang_ratio"
    evidence.measured(rule)
    budgets = [budget for budget in ("params", "macs") if _arm(evidence, "uniform", f"iso-{budget}")]
    if not budgets or not _arm(evidence, "huang"):
        arms = ", ".join(sorted({point.arm or "(none)" for point in evidence.points}))
        raise StudyError(
            f"rule {rule!r} compares arms named huang... with uniform...iso-params or uniform...iso-macs; arms: {arms}"
        )
    return [_ratio_at(evidence, budget) for budget in budgets]


def _arm(evidence: Evidence, *words: str) -> list[Point]:
    """Points with an arm that holds every word."""
    return [
        point
        for point in evidence.points
        if any(all(w in arm for w in words) for arm in point.arm.split("+"))
    ]


def _ratio_at(evidence: Evidence, budget: str) -> RuleVerdict:
    held, other = ("params", "MACs") if budget == "params" else ("MACs", "params")
    ours = _arm(evidence, "huang", f"iso-{budget}") or _arm(evidence, "huang")
    theirs = _arm(evidence, "uniform", f"iso-{budget}")
    pairs = [
        (one, min(theirs, key=lambda two: abs(np.log(two.number(budget) / one.number(budget)))))
        for one in ours
    ]
    off = [pair for pair in pairs if abs(pair[0].number(budget) / pair[1].number(budget) - 1) > TOLERANCE]
    estimates = estimate(evidence.points, evidence.key)
    weights = np.zeros(len(estimates.names))
    for one, two in pairs:
        weights[estimates.index(one.name)] += 1 / len(pairs)
        weights[estimates.index(two.name)] -= 1 / len(pairs)
    effect = linear_effect(estimates, weights, evidence.confidence)
    status, reason = decided(
        evidence, effect, f"huang minus uniform at the same {held}, {len(pairs)} pair{'s' * (len(pairs) > 1)}"
    )
    if off:
        one, two = off[0]
        ratio = one.number(budget) / two.number(budget)
        status, reason = (
            "undecided",
            f"{one.name} has {ratio:.2f}x the {held} of {two.name}; within 10 % is needed",
        )
    each = contrasts(pairs, evidence.key, evidence.points, evidence.confidence, "exploratory")
    unheld = "macs" if budget == "params" else "params"
    shift = [one.number(unheld) / two.number(unheld) for one, two in pairs if two.has_number(unheld)]
    beside = f"; {other} are {min(shift):.2f} to {max(shift):.2f}x the uniform networks'" if shift else ""
    return RuleVerdict(
        rule="huang_ratio",
        statement=f"Widths in the ratio 1 : 1 : 0.4 are more robust than uniform ones at the same {held}.",
        status=status,
        effect=effect.effect,
        interval=effect.interval,
        unit="share",
        n=counted(list({point.name: point for pair in pairs for point in pair}.values())),
        held=f"{held} within 10 %{beside}",
        reason=reason,
        source=SOURCE + "; WRN-34-R of the released code, its ratio as we read it",
        comparisons=tuple(with_equivalence(holm(each), evidence.margin)),
    )
