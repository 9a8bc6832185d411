"""Draw bootstrap samples over images and over seeds, each source of variance once.

Images are drawn with replacement, the same for every configuration; then seeds. S seeds resampled from S have a
variance too small by (S - 1) / S, and the seeds' accuracies hold a part of the image noise (`rest`, see
`components.py`) that the images bring again: deviations are rescaled for both, so that the draws have the variance
of the analytic contrast. Seeds' deviations are drawn from the pool of all configurations. Our choice;
`scipy.stats.bootstrap` resamples one level and knows neither correction.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from robust_nas.lazy import special
from robust_nas.statistics.components import Estimates, Floats

CHUNK = 2_000_000  # weights held at once


def image_weights(rng: Generator, draws: int, images: int) -> Floats:
    """Return `[draws, images]`: how often each image was drawn, over `images`; rows sum to 1."""
    picked = rng.integers(images, size=(draws, images)) + images * np.arange(draws)[:, None]
    return np.bincount(picked.ravel(), minlength=draws * images).reshape(draws, images) / images


def resampled_means(estimates: Estimates, draws: int, rng: Generator, stretch: float = 1.0) -> Floats:
    """Return `[draws, P]`: means of all points on resampled images with resampled seeds.

    `stretch` multiplies the deviations from the means (`t_stretch`).
    """
    means = np.tile(estimates.means, (draws, 1))
    if estimates.images:
        step = max(1, CHUNK // estimates.images)
        for start in range(0, draws, step):
            rows = slice(start, min(start + step, draws))
            weights = image_weights(rng, rows.stop - rows.start, estimates.images)
            means[rows] += stretch * (weights @ estimates.per_image.T - estimates.means)
    return means + stretch * seed_noise(estimates, draws, rng)


def seed_noise(estimates: Estimates, draws: int, rng: Generator) -> Floats:
    """Return `[draws, P]`: deviations of the means due to seeds alone; zeros where none has two seeds."""
    noise = np.zeros((draws, len(estimates.names)))
    if not len(estimates.deviations) or not estimates.pooled:
        return noise
    rest = float(estimates.rest.mean() / estimates.images) if estimates.images else 0.0
    pool = estimates.deviations * np.sqrt(max(0.0, 1 - rest / estimates.pooled))
    for point, seeds in enumerate(estimates.seeds.astype(int)):
        noise[:, point] = rng.choice(pool, size=(draws, seeds)).mean(axis=1)
    return noise


def t_stretch(degrees: float, confidence: float) -> float:
    """Return the ratio of Student's interval to the normal one, by which a bootstrap of few seeds is too narrow."""
    tail = (1 + confidence) / 2
    return float(special.stdtrit(degrees, tail) / special.ndtri(tail))
