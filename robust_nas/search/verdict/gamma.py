"""The min-norm step weighs both objectives: gamma is not stuck at an end.

    gamma* u1 + (1 - gamma*) u2 is the shortest vector between the natural gradient u1 and the adversarial one u2

It follows the shorter of the two. Where one norm is much the smaller, gamma stays at 0 or 1, and the other objective
has no say, although both are asked for. Read in the last quarter of the steps that have a gamma.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from robust_nas.search.verdict.check import SearchCheck, SearchFinding
from robust_nas.search.verdict.evidence import SearchEvidence
from robust_nas.search.verdict.thresholds import GAMMA_END, LAST_PART

REMEDY = "normalise the two gradients before the min-norm step (search.normalise), or add them (search.combine=sum)"


class Gamma(SearchCheck):
    """The mean of gamma over the last quarter of the steps that have one."""

    title: ClassVar[str] = "balance of the gradients"
    allowed: ClassVar[str] = f"{GAMMA_END:g} to {1 - GAMMA_END:g}"
    kinds: ClassVar[tuple[str, ...]] = ("one-shot",)
    name: Literal["gamma"] = "gamma"

    def applies(self, evidence: SearchEvidence) -> bool:
        """Return whether a step of the result's search has a gamma."""
        return bool(evidence.seeds) and any(_is_number(r.get("gamma")) for r in evidence.chosen.records)

    def run(self, evidence: SearchEvidence) -> SearchFinding:
        """Return WARN where gamma stays at an end."""
        records = [record for record in evidence.chosen.records if _is_number(record.get("gamma"))]
        last = records[-max(1, round(LAST_PART * len(records))) :]
        mean = {
            key: sum(values) / len(values)
            for key in ("gamma", "norm_natural", "norm_adversarial")
            if (values := [record[key] for record in last if _is_number(record.get(key))])
        }
        value = mean["gamma"]
        norms = [mean.get("norm_natural"), mean.get("norm_adversarial")]
        text = f"gamma {value:.2f}" + (
            "" if None in norms else f", norms {norms[0]:.3g} natural and {norms[1]:.3g} adversarial"
        )
        if GAMMA_END <= value <= 1 - GAMMA_END:
            return self.finding(evidence, "PASS", text, value, details=mean)
        which = "natural" if value > 0.5 else "adversarial"
        text += f": the alphas follow the {which} gradient alone, which is the shorter one"
        return self.finding(evidence, "WARN", text, value, next_step=REMEDY, details=mean)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
