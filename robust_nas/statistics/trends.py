"""Measure how a metric changes with a factor: rank correlation, and the slope per doubling.

Kendall's tau-b over configurations; its interval is a percentile bootstrap over configurations, images and seeds, so it
covers new trainings and new images of such configurations. The slope is the ordinary least squares slope of
the means on log2(factor). For means alone its interval is Student's with n - 2 degrees of freedom
(with the same number of seeds everywhere this is the mixed model with a random intercept per configuration); HC3
standard errors from `HC3_FROM` configurations on. Where outcomes are known,
the slope's variance over images is added (`components.py`); the part that differs by configuration is in the scatter
too, so the interval is rather wide.

tau is scipy's; its bootstrap is own code, all draws at once: `scipy.stats.bootstrap` calls `kendalltau` for every draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from robust_nas.errors import StudyError
from robust_nas.lazy import stats
from robust_nas.statistics.components import Floats, estimate
from robust_nas.statistics.intervals import Interval
from robust_nas.statistics.measurements import Measurements, factor_values
from robust_nas.statistics.resampling import resampled_means

LEAST = 4  # configurations with an interval of tau
HC3_FROM = 10  # configurations; below, HC3 is too optimistic
Integers = NDArray[np.int64]


class Slope(NamedTuple):
    """A line in log2 of the factor: per doubling, its standard error and interval, and the value at `at(x)`."""

    slope: float
    se: float
    interval: Interval
    p: float
    degrees: float
    intercept: float

    def at(self, x: float) -> float:
        """Return the line's value where the factor is `x`."""
        return self.intercept + self.slope * math.log2(x)


@dataclass(frozen=True)
class Trend:
    """A metric against a factor over n configurations; None where the data cannot say."""

    factor: str
    key: str
    n: int
    tau: float
    interval: Interval | None
    p: float
    slope: Slope | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `analysis.json` holds them."""
        return {
            "factor": self.factor,
            "response": self.key,
            "n": self.n,
            "tau": self.tau,
            "interval": None if self.interval is None else list(self.interval),
            "p": self.p,
            "slope_per_doubling": None if self.slope is None else self.slope.slope,
            "slope_interval": None if self.slope is None else list(self.slope.interval),
        }


def log2_slope(x: ArrayLike, y: ArrayLike, confidence: float = 0.95, *, image_variance: float = 0.0) -> Slope:
    """Return the least squares line of `y` [n] on log2 of `x` [n], with Student's interval of the slope.

    `image_variance` is added to the slope's variance.

    Raises `StudyError` for fewer than 3 values, an `x` that is not positive, or one that does not vary.
    """
    from statsmodels.regression.linear_model import OLS

    given, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(given) < 3 or not np.all(given > 0) or np.ptp(given) == 0:
        raise StudyError(
            f"a slope per doubling over {given.tolist()}; needed: 3 or more positive values that differ"
        )
    log2x = np.log2(given)
    n = len(y)
    fit = OLS(y, np.column_stack([np.ones(n), log2x])).fit()
    scatter = float(fit.cov_HC3[1, 1] if n >= HC3_FROM else fit.cov_params()[1, 1])
    variance = scatter + image_variance
    degrees = (n - 2) * (variance / scatter) ** 2 if scatter > 0 else math.inf  # Satterthwaite, images' exact
    slope, se = float(fit.params[1]), math.sqrt(variance)
    half = float(stats.t.ppf((1 + confidence) / 2, degrees)) * se
    p = 2 * float(stats.t.sf(abs(slope) / se, degrees)) if se > 0 else float(slope == 0)
    return Slope(slope, se, (slope - half, slope + half), p, degrees, float(fit.params[0]))


def kendall(
    x: ArrayLike, y: ArrayLike, confidence: float = 0.95, *, draws: int = 2000, rng: Generator | None = None
) -> tuple[float, Interval | None, float]:
    """Return Kendall's tau-b of `x` [n] and `y` [n], its bootstrap interval (from 4 values on), and its p value.

    Raises `StudyError` where one of them does not vary.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise StudyError(f"a rank correlation of {x.tolist()} and {y.tolist()}; needed: values that vary")
    found = stats.kendalltau(x, y)
    rng = np.random.default_rng(0) if rng is None else rng
    interval = _tau_interval(x, y, confidence, draws, rng) if len(x) >= LEAST else None
    return float(found.statistic), interval, float(found.pvalue)


def trend(
    points: Sequence[Measurements],
    factor: str,
    key: str,
    confidence: float = 0.95,
    *,
    draws: int = 2000,
    rng: Generator | None = None,
) -> Trend:
    """Return how the mean of `key` changes with `factor`.

    No slope where the factor is not positive or has fewer than 3 values.

    Raises `StudyError` where the factor is not a number or does not vary, or `key` was not measured.
    """
    x, estimates = factor_values(points, factor), estimate(points, key)
    if np.ptp(x) == 0:
        raise StudyError(f"factor {factor!r} is {x[0]:g} for all points; a trend needs one that varies")
    if np.ptp(estimates.means) == 0:
        tau, interval, p = 0.0, None, 1.0
    else:
        rng = np.random.default_rng(0) if rng is None else rng
        found = stats.kendalltau(x, estimates.means)
        tau, p = float(found.statistic), float(found.pvalue)
        noisy = resampled_means(estimates, draws, rng)
        interval = _tau_interval(x, noisy, confidence, draws, rng) if len(x) >= LEAST else None
    slope = None
    if np.all(x > 0) and len(np.unique(x)) > 2:
        extra = estimates.variance(slope_weights(np.log2(x))).image
        slope = log2_slope(x, estimates.means, confidence, image_variance=extra)
    return Trend(factor, key, len(points), tau, interval, p, slope)


def slope_weights(x: Floats) -> Floats:
    """Return `[n]` weights: the least squares slope on `x` is `slope_weights(x) @ y`."""
    centred = x - x.mean()
    return np.asarray(centred / (centred @ centred))


def _tau_interval(x: Floats, y: Floats, confidence: float, draws: int, rng: Generator) -> Interval | None:
    """Return percentiles of tau-b over resampled rows, `y` [n], or [draws, n] with noise of its own in every draw.

    A pair of one row with itself is tied in both and drops out.
    """
    n = len(x)
    picked = rng.integers(n, size=(draws, n))
    noisy = _dense_ranks(np.broadcast_to(y, (draws, n)))
    taus = _taus(_dense_ranks(x[None])[0][picked], np.take_along_axis(noisy, picked, axis=1))
    found = taus[np.isfinite(taus)]
    if not len(found):
        return None
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _taus(x: Integers, y: Integers) -> Floats:
    """Return tau-b of every row of ranks `x`, `y` [draws, n]; NaN where one of them is tied throughout.

    Knight (JASA 1966): in the order of x, then y, the discordant pairs are the inversions of y; O(n log^2 n) a row.
    """
    n = x.shape[1]
    both = x * n + y
    order = np.argsort(both, axis=1, kind="stable")
    discordant = _inversions(np.take_along_axis(y, order, axis=1))
    tied_x, tied_y, tied = (_tied_pairs(np.sort(values, axis=1)) for values in (x, y, both))
    pairs = n * (n - 1) / 2
    untied = (pairs - tied_x) * (pairs - tied_y)
    score = pairs - tied_x - tied_y + tied - 2 * discordant
    return np.asarray(np.divide(score, np.sqrt(untied), out=np.full(len(x), np.nan), where=untied > 0))


def _dense_ranks(values: Floats) -> Integers:
    """Return ranks from 0 of every row of `values` [draws, n]; equal values have the same."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    steps = np.cumsum(ordered[:, 1:] != ordered[:, :-1], axis=1)
    ranks = np.zeros(values.shape, dtype=np.int64)
    np.put_along_axis(ranks, order[:, 1:], steps, axis=1)
    return ranks


def _tied_pairs(ordered: Integers) -> Floats:
    """Return the number of equal pairs in every sorted row [draws, n]."""
    new = np.ones(ordered.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    place = np.arange(ordered.shape[1])
    first = np.maximum.accumulate(np.where(new, place, 0), axis=1)
    return np.asarray((place - first).sum(axis=1), dtype=float)  # each value with its equals before it


def _inversions(ranks: Integers) -> Floats:
    """Return the pairs i < j with rank i above rank j of every row [draws, n], bit by bit of the ranks.

    Ranks whose higher bits are equal are in order where the one with the bit comes after the one without.
    """
    found = np.zeros(len(ranks))
    for bit in range(int(ranks.max(initial=0)).bit_length()):
        higher = (ranks >> (bit + 1)).astype(np.int16 if ranks.shape[1] < 2**15 else np.int64)
        order = np.argsort(higher, axis=1, kind="stable")
        group = np.take_along_axis(higher, order, axis=1)
        one = np.take_along_axis(ranks >> bit & 1, order, axis=1)
        before = np.cumsum(one, axis=1) - one
        start = np.ones(group.shape, dtype=bool)
        start[:, 1:] = group[:, 1:] != group[:, :-1]
        base = np.maximum.accumulate(np.where(start, before, 0), axis=1)
        found += ((before - base) * (1 - one)).sum(axis=1)
    return found
