"""The Wilson score interval of a proportion (Wilson, 1927), by scipy.

    centre = (p + z^2 / 2n) / (1 + z^2 / n)
    half   = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2)

It stays within 0..1 and keeps its coverage near 0 and 1, where accuracies live and the normal interval fails.
"""

from __future__ import annotations


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
