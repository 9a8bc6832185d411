"""The Wilson score interval of a proportion (Wilson, 1927), and McNemar's exact test of two, by scipy.

    centre = (p + z^2 / 2n) / (1 + z^2 / n)
    half   = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2)

It stays within 0..1 and keeps its coverage near 0 and 1, where accuracies live and the normal interval fails.
"""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return `(low, high)` of the proportion `successes / n`; `(0, 1)` where nothing was tried.

    Raises `ValueError` for counts that are no proportion.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}; needed: 0 <= successes <= n")
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # here, because configs are checked without scipy

    found = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    # The bounds at no and at full success are exactly 0 and 1; rounding must not say otherwise.
    low = 0.0 if successes == 0 else float(found.low)
    return low, 1.0 if successes == n else float(found.high)


def discordant(only_first: int, only_second: int) -> float:
    """Return the p value of McNemar's exact test: whether two rates on the same images differ (McNemar, 1947).

    The counts are of the images on which one of the two succeeded alone; each is as likely where they do not differ.
    """
    from scipy.stats import binomtest  # here, because configs are checked without scipy

    pairs = only_first + only_second
    return float(binomtest(only_first, pairs).pvalue) if pairs else 1.0


def images_needed(proportion: float, width: float, confidence: float = 0.95) -> int:
    """Return the smallest n at which Wilson's interval of this proportion (0..1) is at most `width` wide.

    From 2 half = width above, a quadratic equation in n. Raises `ValueError` for values that are out of range.
    """
    if not (0 <= proportion <= 1 and 0 < width < 1):
        raise ValueError(
            f"proportion {proportion}, width {width}; needed: 0 <= proportion <= 1, 0 < width < 1"
        )
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    w2, spread = width**2, proportion * (1 - proportion)
    # (n + z^2)^2 w^2 = 4 z^2 n p (1 - p) + z^4, as a n^2 + b n + c = 0; its larger root
    a, b, c = w2, 2 * z2 * (w2 - 2 * spread), z2**2 * (w2 - 1)
    root = (-b + math.sqrt(b * b - 4 * a * c)) / (2 * a)
    return math.ceil(root * (1 - 1e-12))  # rounding must not add one
