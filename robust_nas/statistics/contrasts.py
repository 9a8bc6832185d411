"""Compare configurations: differences paired by image, seeds and images in one interval.

    effect = sum_c w[c] mean[c],  interval = effect -+ t(degrees) sqrt(V)

with V and its degrees of freedom from `components.py`. Two points with one seed each, in a study without any repeated
seed, are compared by McNemar's exact test: then the interval covers images alone, and `includes_seeds` is False.

Holm's correction guards a family of contrasts; two one-sided tests (Schuirmann 1987) earn "no effect".

Holm's step-down is own code: scipy has none, and statsmodels' `multipletests` collects garbage at every call, a quarter
of a second here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robust_nas.errors import StudyError
from robust_nas.lazy import special
from robust_nas.statistics.components import Estimates, Floats, Variance, estimate
from robust_nas.statistics.intervals import Interval
from robust_nas.statistics.measurements import Measurements


@dataclass(frozen=True)
class Effect:
    """A weighted sum of means with its uncertainty; `interval` and `p` are None where nothing can be said."""

    effect: float
    se: float
    degrees: float
    interval: Interval | None
    p: float | None
    includes_seeds: bool
    pooled: bool

    def one_sided(self) -> float:
        """Return the p value of "effect <= 0"; 1 where nothing can be said."""
        if self.p is None:
            return 1.0
        return self.p / 2 if self.effect > 0 else 1 - self.p / 2

    def within(self, margin: float) -> float:
        """Return the p value of "effect outside -+margin" (TOST); 1 where seeds or everything is unknown."""
        if self.p is None or not self.includes_seeds:
            return 1.0
        return float(special.stdtr(self.degrees, (abs(self.effect) - margin) / self.se))


@dataclass(frozen=True)
class Contrast:
    """`mean(a) - mean(b)` of one metric."""

    a: str
    b: str
    key: str
    result: Effect
    seeds: tuple[int, int]
    images: int
    params_ratio: float | None
    macs_ratio: float | None
    confidence: float
    p_holm: float | None = None
    equivalent: bool | None = None
    family: str = "declared"

    @property
    def effect(self) -> float:
        """Return the difference, a share for accuracies."""
        return self.result.effect

    @property
    def interval(self) -> Interval | None:
        """Return the interval over seeds and images; over images alone where `includes_seeds` is False."""
        return self.result.interval

    @property
    def p(self) -> float | None:
        """Return the two-sided p value, before Holm."""
        return self.result.p

    @property
    def includes_seeds(self) -> bool:
        """Return whether the interval covers new seeds."""
        return self.result.includes_seeds

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `analysis.json` holds them."""
        return {
            "a": self.a,
            "b": self.b,
            "response": self.key,
            "effect": self.effect,
            "interval": None if self.interval is None else list(self.interval),
            "p": self.p,
            "p_holm": self.p_holm,
            "equivalent": self.equivalent,
            "includes_seeds": self.includes_seeds,
            "n": {"seeds_a": self.seeds[0], "seeds_b": self.seeds[1], "images": self.images},
            "params_ratio": self.params_ratio,
            "macs_ratio": self.macs_ratio,
            "family": self.family,
        }


def contrast(
    a: Measurements,
    b: Measurements,
    key: str,
    points: Sequence[Measurements] = (),
    confidence: float = 0.95,
    family: str = "declared",
) -> Contrast:
    """Return `mean(a) - mean(b)`; `points` are all of the study, whose seed variance is pooled.

    Raises `StudyError` where `key` was not measured, or images differ.
    """
    return contrasts([(a, b)], key, points, confidence, family)[0]


def contrasts(
    pairs: Sequence[tuple[Measurements, Measurements]],
    key: str,
    points: Sequence[Measurements] = (),
    confidence: float = 0.95,
    family: str = "declared",
) -> list[Contrast]:
    """Return the contrasts of many pairs of one study, not yet corrected (`holm`)."""
    estimates = estimate(_union(points, pairs), key)
    return [_contrast(a, b, estimates, confidence, family) for a, b in pairs]


def holm(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """Return the contrasts with `p_holm`: Holm's step-down correction over the family given.

    Contrasts without a p value stay without one and do not count.
    """
    adjusted = iter(holm_adjusted([each.p for each in contrasts if each.p is not None]))
    return [each if each.p is None else replace(each, p_holm=next(adjusted)) for each in contrasts]


def holm_adjusted(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values, in the order given."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return [float(value) for value in adjusted]


def equivalent(contrast: Contrast, margin: float) -> bool | None:
    """Return whether the effect lies within -+`margin`, by two one-sided tests at 1 - confidence.

    None where the contrast does not cover seeds: one training cannot earn "no effect".

    Raises `StudyError` for a margin that is not positive.
    """
    if not margin > 0:
        raise StudyError(
            f"equivalence margin {margin}; needed: a positive difference, such as 0.01 for one point"
        )
    if contrast.p is None or not contrast.includes_seeds:
        return None
    return contrast.result.within(margin) <= 1 - contrast.confidence


def with_equivalence(contrasts: Sequence[Contrast], margin: float | None) -> list[Contrast]:
    """Return the contrasts with `equivalent` filled in; unchanged without a margin."""
    return [
        each if margin is None else replace(each, equivalent=equivalent(each, margin)) for each in contrasts
    ]


def linear_effect(estimates: Estimates, weights: Floats, confidence: float) -> Effect:
    """Return `weights @ means`, `weights` [P], with Student's interval."""
    variance = estimates.variance(weights)
    includes = bool(estimates.degrees.sum())
    return effect_of(float(weights @ estimates.means), variance, confidence, includes, bool(estimates.images))


def effect_of(
    effect: float, variance: Variance, confidence: float, includes_seeds: bool, known: bool
) -> Effect:
    """Return an effect with Student's interval; `known`: images were seen, so that one seed has an interval too."""
    se = math.sqrt(variance.total)
    if not (includes_seeds or known):
        return Effect(effect, se, variance.degrees, None, None, False, False)
    if se == 0:  # numbers of a few seeds that are all equal do not tell how others would differ
        return Effect(effect, se, variance.degrees, None, None, includes_seeds, variance.pooled)
    half = float(special.stdtrit(variance.degrees, (1 + confidence) / 2)) * se
    p = 2 * float(special.stdtr(variance.degrees, -abs(effect) / se))
    interval = (effect - half, effect + half)
    return Effect(effect, se, variance.degrees, interval, p, includes_seeds, variance.pooled)


def _contrast(
    a: Measurements, b: Measurements, estimates: Estimates, confidence: float, family: str
) -> Contrast:
    weights = np.zeros(len(estimates.names))
    weights[estimates.index(a.name)] += 1
    weights[estimates.index(b.name)] -= 1
    result = linear_effect(estimates, weights, confidence)
    if not result.includes_seeds and estimates.images:
        result = replace(result, p=_mcnemar(a, b, estimates.key))
    return Contrast(
        a=a.name,
        b=b.name,
        key=estimates.key,
        result=result,
        seeds=(len(a.seeds), len(b.seeds)),
        images=estimates.images,
        params_ratio=_ratio(a, b, "params"),
        macs_ratio=_ratio(a, b, "macs"),
        confidence=confidence,
        family=family,
    )


def _mcnemar(a: Measurements, b: Measurements, key: str) -> float:
    """Return the exact p value of two single networks on the same images."""
    from statsmodels.stats.contingency_tables import mcnemar

    ours, theirs = a.outcomes[key][0], b.outcomes[key][0]
    table = [
        [(ours & theirs).sum(), (ours & ~theirs).sum()],
        [(~ours & theirs).sum(), (~ours & ~theirs).sum()],
    ]
    return float(mcnemar(np.array(table), exact=True).pvalue)


def _union(
    points: Sequence[Measurements], pairs: Sequence[tuple[Measurements, Measurements]]
) -> list[Measurements]:
    return list(
        {point.name: point for point in [*points, *(point for pair in pairs for point in pair)]}.values()
    )


def _ratio(a: Measurements, b: Measurements, budget: str) -> float | None:
    if not (a.has_number(budget) and b.has_number(budget)):
        return None
    return a.number(budget) / b.number(budget)
