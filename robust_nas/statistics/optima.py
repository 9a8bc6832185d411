"""Find out whether a response has its maximum inside a range, and where: curves at a fixed budget.

A parabola through the means, `y = b0 + b1 x + b2 x^2`, least squares. Its maximum, `-b1 / 2 b2` where it opens
downwards and that lies within the range, else the end with the higher fit, is the location. Interval and band: the fit
repeated on resampled images and seeds (`resampling.py`), deviations widened by Student's factor and, where the means
scatter around the parabola more than their noise, by that too.

A parabola always has a maximum, so it does not decide: `interior` needs a measured point inside the range that lies
significantly above both ends. The p value of each end counts that the point was chosen as the best of all inside
(maximum of correlated t, as Dunnett's test); Holm over the two ends. Our choice. `scipy.stats.dunnett` takes samples
with independent errors; here the means are correlated by the images, so the maximum is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator

from robust_nas.errors import StudyError
from robust_nas.lazy import special
from robust_nas.statistics.components import Estimates, Floats, estimate
from robust_nas.statistics.contrasts import Effect, holm_adjusted, linear_effect
from robust_nas.statistics.intervals import Interval
from robust_nas.statistics.measurements import Measurements, factor_values
from robust_nas.statistics.resampling import resampled_means, t_stretch

GRID = 41  # places where the fit is drawn
DUNNETT_DRAWS = 10_000


@dataclass(frozen=True)
class Optimum:
    """The maximum of `key` along a factor at a fixed budget. Shares 0..1 for accuracies."""

    along: str
    key: str
    budget: str
    points: tuple[str, ...]  # that it was found on, along the factor
    location: float
    interval: Interval
    interior: bool
    top: str  # the best measured point inside
    ends: tuple[str, str]
    drops: tuple[Effect, Effect]  # top minus either end
    p_ends: tuple[float, float]  # corrected for the choice of the top, then by Holm
    p_lack_of_fit: float | None  # of the parabola; None where nothing varies
    fit: tuple[tuple[float, float, float, float], ...]  # x, y, low, high

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `analysis.json` holds them."""
        return {
            "along": self.along,
            "response": self.key,
            "budget": self.budget,
            "points": list(self.points),
            "location": self.location,
            "interval": list(self.interval),
            "interior": self.interior,
            "top": self.top,
            "p_ends": list(self.p_ends),
            "p_lack_of_fit": self.p_lack_of_fit,
            "fit": [list(row) for row in self.fit],
        }


def interior_optimum(
    x: str,
    points: Sequence[Measurements],
    key: str,
    budget: str,
    confidence: float = 0.95,
    *,
    draws: int = 1000,
    rng: Generator | None = None,
) -> Optimum:
    """Return where `key` is highest along the factor `x` at one `budget` (`params` or `macs`: a label only).

    Configurations with the same `x` stay separate; the ends are the first and the last.

    Raises `StudyError` for fewer than 4 points with different `x`, or no point with two seeds.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    places = factor_values(points, x)
    if len(np.unique(places)) < 4:
        raise StudyError(
            f"an optimum along {x!r} over {sorted(set(places.tolist()))}; needed: 4 or more values"
        )
    points = [points[index] for index in np.argsort(places, kind="stable")]
    places, estimates = np.sort(places), estimate(points, key)
    if not estimates.degrees.sum():
        raise StudyError(
            f"an optimum along {x!r} from one seed each; needed: 2 or more seeds of a configuration"
        )
    solve: Floats = np.asarray(np.linalg.pinv(_parabola(places)), dtype=np.float64)
    excess, p_fit = _lack_of_fit(places, solve, estimates)
    stretch = t_stretch(float(estimates.degrees.sum()), confidence) * np.sqrt(max(1.0, excess))
    drawn = resampled_means(estimates, draws, rng, stretch) @ solve.T
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(_maxima(drawn, places[0], places[-1]), tails)
    fitted = solve @ estimates.means
    grid = np.linspace(places[0], places[-1], GRID)
    band = np.quantile(drawn @ _parabola(grid).T, tails, axis=0)
    top, drops, p_ends = _ends(places, estimates, confidence, rng)
    location = float(_maxima(fitted[None], places[0], places[-1])[0])
    inside = places[0] < location < places[-1]
    return Optimum(
        along=x,
        key=key,
        budget=budget,
        points=estimates.names,
        location=location,
        interval=(float(low), float(high)),
        interior=bool(inside and max(p_ends) <= 1 - confidence),
        top=estimates.names[top],
        ends=(estimates.names[0], estimates.names[-1]),
        drops=drops,
        p_ends=p_ends,
        p_lack_of_fit=p_fit,
        fit=tuple(zip(*(part.tolist() for part in (grid, _parabola(grid) @ fitted, *band)), strict=True)),
    )


def _parabola(x: Floats) -> Floats:
    """Return the design matrix `[n, 3]`."""
    return np.column_stack([np.ones(len(x)), x, x**2])


def _maxima(parabolas: Floats, low: float, high: float) -> Floats:
    """Return `[B]`: where parabolas `[B, 3]` are highest within `low..high`."""
    _, slope, bend = parabolas.T
    left = slope * low + bend * low**2
    right = slope * high + bend * high**2
    peak = np.where(left > right, low, high)
    down = bend < 0
    peak[down] = np.clip(-slope[down] / (2 * bend[down]), low, high)
    return peak


def _lack_of_fit(x: Floats, solve: Floats, estimates: Estimates) -> tuple[float, float | None]:
    """Return the ratio F of the residuals of the means to their noise, and its p value."""
    residual = np.eye(len(x)) - _parabola(x) @ solve
    spare = len(x) - 3
    off, noise = residual @ estimates.means, residual @ estimates.covariance() @ residual.T
    if np.trace(noise) <= 0:
        return 1.0, None
    excess = float(off @ np.linalg.pinv(noise, rcond=1e-9, hermitian=True) @ off) / spare
    return excess, float(special.fdtrc(spare, estimates.degrees.sum(), max(excess, 0.0)))


def _ends(
    x: Floats, estimates: Estimates, confidence: float, rng: Generator
) -> tuple[int, tuple[Effect, Effect], tuple[float, float]]:
    """Return the best configuration inside, its effects over both ends, and their corrected p values."""
    P = len(x)
    inside = np.flatnonzero((x > x[0]) & (x < x[-1]))
    top = int(inside[np.argmax(estimates.means[inside])])
    covariance = estimates.covariance()
    drops, p = [], []
    for end in (0, P - 1):
        weights = np.zeros(P)
        weights[top], weights[end] = 1, -1
        drop = linear_effect(estimates, weights, confidence)
        rows = np.eye(P)[inside] - np.eye(P)[end]
        drops.append(drop)
        p.append(_best_of(drop, rows @ covariance @ rows.T, rng))
    first, second = holm_adjusted(p)
    return top, (drops[0], drops[1]), (first, second)


def _best_of(drop: Effect, covariance: Floats, rng: Generator) -> float:
    """Return the p value of the largest of correlated t statistics: P(max_j T_j >= t)."""
    if drop.effect <= 0:
        return 1.0
    if drop.se == 0:
        return 0.0
    scale = np.sqrt(np.maximum(covariance.diagonal(), 1e-300))
    normal = rng.multivariate_normal(
        np.zeros(len(scale)), covariance / np.outer(scale, scale), DUNNETT_DRAWS, method="eigh"
    )
    largest = normal.max(axis=1) / np.sqrt(rng.chisquare(drop.degrees, DUNNETT_DRAWS) / drop.degrees)
    return float((1 + (largest >= drop.effect / drop.se).sum()) / (1 + DUNNETT_DRAWS))
