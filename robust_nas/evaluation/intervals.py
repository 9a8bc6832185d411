"""The Wilson score interval of a proportion (Wilson, 1927).

    centre = (p + z^2 / 2n) / (1 + z^2 / n)
    half   = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2)

It stays within 0..1 and keeps its coverage near 0 and 1, where accuracies live and the normal interval fails.
"""

from __future__ import annotations

import math


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """`(low, high)` of the proportion `successes / n`; `(0, 1)` where nothing was tried. z 1.96 means 95 %.

    Raises `ValueError` for counts that are no proportion.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}; needed: 0 <= successes <= n")
    if n == 0:
        return 0.0, 1.0
    p, shrink = successes / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # The bounds at no and at full success are exactly 0 and 1; rounding must not say otherwise.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)
