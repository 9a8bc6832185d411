"""Split the variance of an accuracy into its sources: seeds, images, and the residual.

Outcomes y[c, s, i] of configuration c, seed s, image i. Seeds are nested in configurations, images are shared by all:

    y[c, s, i] = mu[c] + seed[c, s] + image[c, i] + rest[c, s, i]

For a contrast `effect = sum_c w[c] mean[c]` of configurations with S[c] seeds on N images,

    V_seed  = sum_c w[c]^2 s[c]^2 / S[c]                 s^2: variance of the seeds' accuracies
    V_image = var_i(sum_c w[c] mean_s y[c, s, i]) / N    paired by image
    V_rest  = sum_c w[c]^2 R[c] / (S[c] N)               R: residual mean square of the seed x image table
    V       = V_seed + max(0, V_image - V_rest)

`rest` is in V_seed and in V_image, so it is taken out once (two-way random effects; Owen 2007 on why a naive
bootstrap over both counts it too often). Degrees of freedom by Satterthwaite from those of V_seed and N - 1.

s^2 is pooled over all configurations of the study, since each has few seeds. Where the seeds of the configurations
under comparison vary clearly more than the others (F test, level 20 %), their own variances are used (Welch).
Pooling and this guard are our choice, and so is the floor 1 / N(N + 2) of V_image: where every answer is the same, N
images do not show that the next one is too (as if one in N + 2 might differ).

scipy and statsmodels have no such model: `mixedlm` fits it by iteration and knows no crossed effects of few levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robust_nas.errors import StudyError
from robust_nas.lazy import special
from robust_nas.statistics.measurements import Measurements

Floats = NDArray[np.float64]

GUARD = 0.2  # level of the F test that stops pooling


@dataclass(frozen=True)
class Variance:
    """The variance of a linear contrast and its degrees of freedom; `seed` and `image` are its two parts."""

    seed: float
    image: float
    degrees: float
    pooled: bool  # the seeds' variance is the whole study's

    @property
    def total(self) -> float:
        """Return the variance of the effect."""
        return self.seed + self.image


@dataclass(frozen=True, eq=False)
class Estimates:
    """Means and variance components of one metric. P: configurations, N: images (0 for a measure)."""

    key: str
    names: tuple[str, ...]
    means: Floats  # [P]
    seeds: Floats  # [P] numbers of seeds
    seed_variance: Floats  # [P] s^2 of each point, 0 where it has one seed
    rest: Floats  # [P] R
    per_image: Floats  # [P, N] means over the seeds
    deviations: Floats  # [sum of S over points with more than one seed] of the seeds, scaled to variance s^2

    @property
    def images(self) -> int:
        """Return N."""
        return int(self.per_image.shape[1])

    @property
    def degrees(self) -> Floats:
        """Return `[P]`: the degrees of freedom of each configuration's seed variance."""
        return self.seeds - 1

    @property
    def pooled(self) -> float:
        """Return s^2 pooled over the configurations; nan where none has two seeds."""
        total = self.degrees.sum()
        return float((self.degrees * self.seed_variance).sum() / total) if total else np.nan

    def index(self, name: str) -> int:
        """Return the index of a configuration."""
        return self.names.index(name)

    def variance(self, weights: Floats) -> Variance:
        """Return the variance of `weights @ means`, `weights` of shape [P]."""
        used = weights != 0
        part = weights[used] ** 2 / self.seeds[used]
        image_degrees = max(self.images - 1, 1)
        N = self.images
        image = float(np.var(weights[used] @ self.per_image[used], ddof=1) / N) if N > 1 else 0.0
        if N and np.count_nonzero(used):
            image = max(image, 1 / (N * (N + 2)))  # answers that never differed are not known never to differ
        total = self.degrees.sum()
        if total == 0:  # one seed everywhere: V_seed is unknown, and V_rest cannot be separated from V_image
            return Variance(0.0, image, image_degrees, False)
        seed, degrees, pooled = self._seed_variance(used, part)
        rest = float(part @ self.rest[used] / self.images) if self.images else 0.0
        extra = max(0.0, image - rest)
        spread = seed**2 / degrees + (image**2 / image_degrees if extra else 0.0)
        return Variance(
            seed, extra, float((seed + extra) ** 2 / spread) if spread else float(degrees), pooled
        )

    def _seed_variance(self, used: NDArray[np.bool_], part: Floats) -> tuple[float, float, bool]:
        own, degrees = self.seed_variance[used], self.degrees[used]
        others = self.degrees[~used].sum()
        if others and degrees.size and np.all(degrees > 0):
            elsewhere = (self.degrees[~used] @ self.seed_variance[~used]) / others
            ours = (degrees @ own) / degrees.sum()
            if ours > elsewhere * special.fdtri(degrees.sum(), others, 1 - GUARD):
                terms = part * own
                return float(terms.sum()), float(terms.sum() ** 2 / (terms**2 / degrees).sum()), False
        return float(part.sum() * self.pooled), float(self.degrees.sum()), True

    def covariance(self) -> Floats:
        """Return the covariance `[P, P]` of the means, with the pooled seed variance and each source once."""
        seed = np.diag(self.pooled / self.seeds) if self.degrees.sum() else np.zeros((len(self.names),) * 2)
        if self.images < 2:
            return seed
        image = np.atleast_2d(np.cov(self.per_image)) / self.images
        if self.degrees.sum():
            image = image - np.diag(self.rest / self.seeds / self.images)
            image[np.diag_indices_from(image)] = np.maximum(image.diagonal(), 0)
        return seed + image


def estimate(points: Sequence[Measurements], key: str) -> Estimates:
    """Return the estimates of `key` over `points`.

    Raises `StudyError` where it was not measured, names are not unique, or numbers of images differ.
    """
    names = tuple(point.name for point in points)
    if not names or len(set(names)) != len(names):
        raise StudyError(f"points {names}; needed: at least one, each name once")
    values = [point.values(key) for point in points]
    outcomes = [point.outcomes.get(key) for point in points]
    images = {0 if outcome is None else outcome.shape[1] for outcome in outcomes}
    if len(images) > 1:
        raise StudyError(
            f"{key!r} of {sorted(images)} images; needed: the same images for every point of a study"
        )
    seeds = np.array([len(value) for value in values], dtype=float)
    variance = np.array([value.var(ddof=1) if len(value) > 1 else 0.0 for value in values])
    rest = np.array([0.0 if outcome is None else _rest(outcome) for outcome in outcomes])
    many = seeds > 1
    if many.any():
        rest[~many] = rest[many].mean()
    scaled = [
        (value - value.mean()) * np.sqrt(len(value) / (len(value) - 1)) for value in values if len(value) > 1
    ]
    return Estimates(
        key=key,
        names=names,
        means=np.array([value.mean() for value in values]),
        seeds=seeds,
        seed_variance=variance,
        rest=rest,
        per_image=np.array([[] if outcome is None else outcome.mean(axis=0) for outcome in outcomes]),
        deviations=np.concatenate(scaled) if scaled else np.zeros(0),
    )


def _rest(outcome: NDArray[np.bool_]) -> float:
    """Return R: the residual mean square of a table `[S, N]` after row and column means; 0 for one row or column."""
    S, N = outcome.shape
    if min(S, N) < 2:
        return 0.0
    mean = outcome.mean()
    columns = S * ((outcome.mean(axis=0) - mean) ** 2).sum()
    rows = N * ((outcome.mean(axis=1) - mean) ** 2).sum()
    return float(max(S * N * mean * (1 - mean) - columns - rows, 0.0) / ((S - 1) * (N - 1)))
