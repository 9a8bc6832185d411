"""Find the smallest effect that a number of seeds can detect: the power of the two-sample t test.

    P(|T'| > t(1 - alpha / 2, df)),  T' noncentral t with effect / (SD sqrt(2 / seeds))

df = configurations (seeds - 1): 2 configurations alone give the textbook test, more pool their seeds' variance.
With `images` the variance over test images is added, for two networks whose answers per image correlate by
`correlation`: accuracy (1 - accuracy) (1 - correlation) / images each, for every seed the same images.
"""

from __future__ import annotations

import math

from robust_nas.errors import StudyError
from robust_nas.lazy import stats


def smallest_effect(
    sd: float,
    seeds: int,
    power: float = 0.8,
    alpha: float = 0.05,
    *,
    images: int | None = None,
    configurations: int = 2,
    accuracy: float = 0.5,
    correlation: float = 0.5,
) -> float:
    """Return the difference of two configurations, in the unit of `sd`, that is found with probability `power`.

    `sd` is the seeds' standard deviation (share 0..1 where `images` are given), `seeds` those of each configuration.

    Raises `StudyError` for one seed, or values out of their range.
    """
    from scipy import optimize

    if seeds < 2 or configurations < 2:
        raise StudyError(
            f"{seeds} seeds, {configurations} configurations; needed: 2 or more of both for any power"
        )
    if not (sd > 0 and 0 < alpha < power < 1):
        raise StudyError(f"sd {sd}, alpha {alpha}, power {power}; needed: sd > 0, 0 < alpha < power < 1")
    if images is not None and not (images > 0 and 0 <= accuracy <= 1 and -1 <= correlation <= 1):
        raise StudyError(
            f"{images} images, accuracy {accuracy}, correlation {correlation}; needed: > 0, 0..1, -1..1"
        )
    image = 0.0 if images is None else accuracy * (1 - accuracy) * (1 - correlation) / images
    se = math.sqrt(2 * (sd**2 / seeds + image))
    degrees = configurations * (seeds - 1)
    bar = float(stats.t.isf(alpha / 2, degrees))

    def missing(shift: float) -> float:
        found = stats.nct.sf(bar, degrees, shift) + stats.nct.cdf(-bar, degrees, shift)
        return float(found) - power

    enough = bar
    while missing(enough) < 0:
        enough *= 1.5
    return se * float(optimize.brentq(missing, 1e-6, enough))
