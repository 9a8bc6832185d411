"""The exact hypervolume of a set of points: the volume that they dominate above a reference.

Own code: neither scipy nor networkx has it. Two objectives: one sweep over the front, N log N. Every further one: a
sweep along it, with the volume of the points above each level in the others, a factor of N each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from robust_nas.errors import StudyError
from robust_nas.statistics.components import Floats


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume between the points `[N, K]` and the reference `[K]`, K >= 1; higher is better in all.

    A point that is not above the reference in every objective adds nothing. Raises `StudyError` where points and
    reference have another number of objectives, and for numbers that are not finite.
    """
    corner, given = np.asarray(reference, dtype=float), np.asarray(points, dtype=float)
    if corner.ndim != 1 or not corner.size or given.shape != (len(given), *corner.shape):
        raise StudyError(
            f"got points {list(given.shape)} and a reference {list(corner.shape)}; one objective or more is needed, "
            "the same in both"
        )
    if not (np.isfinite(given).all() and np.isfinite(corner).all()):
        raise StudyError("got a point or a reference that is not finite")
    return _volume((given - corner)[(given > corner).all(axis=1)])


def _volume(sides: Floats) -> float:
    """Return the volume of the union of the boxes `[N, K]` that start at 0."""
    if sides.shape[1] == 1:
        return float(sides.max(initial=0.0))
    if sides.shape[1] == 2:
        x, y = sides[np.lexsort((-sides[:, 1], -sides[:, 0]))].T
        reached = np.maximum.accumulate(np.append(0.0, y))
        return float(x @ np.diff(reached))
    sides = sides[np.argsort(-sides[:, -1], kind="stable")]
    depths = sides[:, -1] - np.append(sides[1:, -1], 0.0)
    return sum(
        _volume(sides[: number + 1, :-1]) * float(depth) for number, depth in enumerate(depths) if depth > 0
    )
