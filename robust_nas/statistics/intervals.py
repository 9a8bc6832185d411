"""Summarise one configuration: mean, deviation, and three intervals with different meanings.

- seed interval: where the mean over all seeds lies, for these images: Student's t over the seeds. Needs 3 seeds.
- image interval: where these trained networks' accuracy lies on all images: bootstrap over the images of the mean over
  seeds; Wilson's where there is one seed, or where every answer is the same.
- interval: both at once, for a new training on new images: bootstrap over images and seeds, its deviations widened by
  Student's factor at the Satterthwaite degrees of freedom. Needs 3 seeds.

With 2 seeds their range is shown, with 1 there is no seed interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator

from robust_nas.lazy import special
from robust_nas.statistics.components import Floats, estimate
from robust_nas.statistics.measurements import Measurements
from robust_nas.statistics.proportions import wilson
from robust_nas.statistics.resampling import seed_noise, t_stretch

Interval = tuple[float, float]

LEAST_SEEDS = 3  # below there is no interval over seeds


@dataclass(frozen=True)
class Summary:
    """One metric of one configuration. Accuracies are shares 0..1; None where there are too few seeds."""

    key: str
    values: tuple[float, ...]
    mean: float
    sd: float | None
    seed_interval: Interval | None
    image_interval: Interval | None
    interval: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `analysis.json` holds them."""
        return {
            "values": list(self.values),
            "mean": self.mean,
            "sd": self.sd,
            "seed_interval": _listed(self.seed_interval),
            "image_interval": _listed(self.image_interval),
            "interval": _listed(self.interval),
        }


def summary(
    point: Measurements,
    key: str,
    confidence: float = 0.95,
    *,
    draws: int = 1000,
    rng: Generator | None = None,
) -> Summary:
    """Return mean, SD and intervals of `key` over the seeds and images of `point`.

    `rng` drives the bootstraps; without one it starts from 0, so that equal inputs give equal tables.

    Raises `StudyError` where `key` was not measured.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    estimates = estimate([point], key)
    values = point.values(key)
    mean, S = float(values.mean()), len(values)
    sd = float(values.std(ddof=1)) if S > 1 else None
    seed = image = both = None
    if sd is not None and S >= LEAST_SEEDS:
        half = float(special.stdtrit(S - 1, (1 + confidence) / 2)) * sd / S**0.5
        seed = (mean - half, mean + half)
    if estimates.images:
        moved = _over_images(estimates.per_image[0], draws, rng)
        image = _image_interval(estimates.per_image[0], moved, S, confidence)
        if seed is not None:
            seed = _clipped(*seed)
            variance = estimates.variance(np.ones(1))
            noise = seed_noise(estimates, draws, rng)[:, 0] + moved - mean
            both = _clipped(*_percentiles(mean + t_stretch(variance.degrees, confidence) * noise, confidence))
            both = (min(both[0], image[0]), max(both[1], image[1]))
    return Summary(key, tuple(values.tolist()), mean, sd, seed, image, both)


def _over_images(per_image: Floats, draws: int, rng: Generator) -> Floats:
    """Return `[draws]`: the mean over resampled images; only the counts of equal answers have to be drawn."""
    answers, counts = np.unique(per_image, return_counts=True)
    drawn = rng.multinomial(counts.sum(), counts / counts.sum(), size=draws)
    return np.asarray(drawn @ answers / counts.sum())


def _image_interval(per_image: Floats, moved: Floats, seeds: int, confidence: float) -> Interval:
    N, total = len(per_image), per_image.sum()
    if seeds == 1 or np.ptp(per_image) == 0:
        return wilson(round(total), N, confidence)
    return _percentiles(moved, confidence)


def _percentiles(draws: Floats, confidence: float) -> Interval:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _clipped(low: float, high: float) -> Interval:
    return max(low, 0.0), min(high, 1.0)


def _listed(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
