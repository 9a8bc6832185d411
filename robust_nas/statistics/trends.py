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
PAIRS = 5_000_000  # of signs held at once


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
    sign_x = _signs(x)
    picked = rng.integers(n, size=(draws, n)) + n * np.arange(draws)[:, None]
    counts = np.bincount(picked.ravel(), minlength=draws * n).reshape(draws, n).astype(float)
    noisy = np.broadcast_to(y, (draws, n))
    taus = []
    step = max(1, PAIRS // n**2)
    for start in range(0, draws, step):
        rows = slice(start, start + step)
        sign_y = _signs(noisy[rows])
        both, own, other = (
            np.einsum("di,dj,dij->d", counts[rows], counts[rows], pairs, optimize=True)
            for pairs in (sign_x * sign_y, np.broadcast_to(np.abs(sign_x), sign_y.shape), np.abs(sign_y))
        )
        ties = own * other
        taus.append(both[ties > 0] / np.sqrt(ties[ties > 0]))
    found = np.concatenate(taus)
    if not len(found):
        return None
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _signs(values: NDArray[np.float64]) -> Floats:
    """Return the signs `[..., n, n]` of all differences of values `[..., n]`."""
    return np.sign(values[..., :, None] - values[..., None, :])
