"""Judge "widths 1 : 1 : 0.4 are more robust than uniform ones" (Huang et al., 2021), one verdict per budget held.

    effect = mean over pairs of (a network of the ratio - the uniform network nearest to it in the budget)

The ratio is read as W = k (1, 1, 0.4) with uniform depth: the paper gives one network, WRN-34-R; the scaling is
inferred. How it is decided is our choice. Arms are `huang...` and `uniform...iso-params...` or `uniform...iso-macs...`;
where an arm names `huang` together with the budget, that one is taken, else every `huang` configuration.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from robust_nas.errors import StudyError
from robust_nas.statistics import Measurements, contrasts, estimate, holm, linear_effect, with_equivalence
from robust_nas.studies.rules.evidence import TOLERANCE, Evidence, count_cases, verdict_of
from robust_nas.studies.rules.rule import Rule, RuleVerdict

WORDS = {"params": "params", "macs": "MACs"}


class HuangRatio(Rule):
    """Widths in the ratio 1 : 1 : 0.4 are more robust than uniform ones at the same budget."""

    statement = "Widths in the ratio 1 : 1 : 0.4 are more robust than uniform ones at the same budget."
    source = (
        "Huang et al., NeurIPS 2021 (arXiv 2110.03825), abstract; "
        "WRN-34-R of the released code, its ratio as we read it"
    )
    factors = ("params", "macs")
    name: Literal["huang_ratio"] = "huang_ratio"

    def judge(self, evidence: Evidence) -> list[RuleVerdict]:
        """Return a verdict per budget that a uniform arm holds. Raises `StudyError` without such arms."""
        budgets = [budget for budget in WORDS if _arm(evidence, "uniform", f"iso-{budget}")]
        if not budgets or not _arm(evidence, "huang"):
            arms = ", ".join(sorted({point.arm or "(none)" for point in evidence.points}))
            raise StudyError(
                f"rule {self.label!r} compares arms named huang... with uniform...iso-params or uniform...iso-macs; "
                f"arms: {arms}"
            )
        return [self._at(evidence, budget) for budget in budgets]

    def _at(self, evidence: Evidence, budget: str) -> RuleVerdict:
        held, unheld = WORDS[budget], "macs" if budget == "params" else "params"
        ours = _arm(evidence, "huang", f"iso-{budget}") or _arm(evidence, "huang")
        theirs = _arm(evidence, "uniform", f"iso-{budget}")
        pairs = [
            (one, min(theirs, key=lambda two: abs(np.log(two.number(budget) / one.number(budget)))))
            for one in ours
        ]
        compared = list({point.name: point for pair in pairs for point in pair}.values())
        pool = evidence.pool(compared)
        estimates = estimate(pool, evidence.key)
        weights = np.zeros(len(estimates.names))
        for one, two in pairs:
            weights[estimates.index(one.name)] += 1 / len(pairs)
            weights[estimates.index(two.name)] -= 1 / len(pairs)
        effect = linear_effect(estimates, weights, evidence.confidence)
        claim = f"huang minus uniform at the same {held}, {len(pairs)} pair{'s' * (len(pairs) > 1)}"
        status, reason = verdict_of(evidence, effect, claim)
        for one, two in pairs:
            ratio = one.number(budget) / two.number(budget)
            if abs(ratio - 1) > TOLERANCE:
                status = "undecided"
                reason = f"{one.name} has {ratio:.2f}x the {held} of {two.name}; within 10 % is needed"
                break
        each = contrasts(pairs, evidence.key, pool, evidence.confidence, "exploratory")
        shift = [one.number(unheld) / two.number(unheld) for one, two in pairs if two.has_number(unheld)]
        free = (
            f"; {WORDS[unheld]} are {min(shift):.2f} to {max(shift):.2f}x the uniform networks'"
            if shift
            else ""
        )
        return self.verdict(
            statement=f"Widths in the ratio 1 : 1 : 0.4 are more robust than uniform ones at the same {held}.",
            status=status,
            effect=effect.effect,
            interval=effect.interval,
            n=count_cases(compared),
            about=compared,
            held=f"{held} within 10 %{free}",
            reason=reason,
            comparisons=tuple(with_equivalence(holm(each), evidence.margin)),
        )


def _arm(evidence: Evidence, *words: str) -> list[Measurements]:
    """Return the configurations with an arm that holds every word."""
    return [
        point
        for point in evidence.points
        if any(all(word in arm for word in words) for arm in point.arm.split("+"))
    ]
