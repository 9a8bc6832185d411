"""The exact hypervolume of a set of points with two or three objectives.

Own code: neither scipy nor networkx has it. Two objectives: one sweep over the front, N log N. Three: a sweep over the
third objective, with the area of the points above each level, N^2 log N.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from robust_nas.errors import StudyError
from robust_nas.statistics.components import Floats


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume between the points `[N, K]` and the reference `[K]`, K = 2 or 3; higher is better in all.

    A point that is not above the reference in every objective adds nothing. Raises `StudyError` for another K, and for
    numbers that are not finite.
    """
    corner, given = np.asarray(reference, dtype=float), np.asarray(points, dtype=float)
    if corner.shape not in ((2,), (3,)) or given.shape != (len(given), *corner.shape):
        raise StudyError(
            f"got points {list(given.shape)} and a reference {list(corner.shape)}; two or three objectives are needed, "
            "the same in both"
        )
    if not (np.isfinite(given).all() and np.isfinite(corner).all()):
        raise StudyError("got a point or a reference that is not finite")
    sides = (given - corner)[(given > corner).all(axis=1)]
    if corner.size == 2:
        return _area(sides)
    sides = sides[np.argsort(-sides[:, 2], kind="stable")]
    depths = sides[:, 2] - np.append(sides[1:, 2], 0.0)
    return float(
        sum(_area(sides[: number + 1, :2]) * depth for number, depth in enumerate(depths) if depth > 0)
    )


def _area(sides: Floats) -> float:
    """Return the area of the union of the rectangles `[N, 2]` that start at 0."""
    x, y = sides[np.lexsort((-sides[:, 1], -sides[:, 0]))].T
    reached = np.maximum.accumulate(np.append(0.0, y))
    return float(x @ np.diff(reached))
