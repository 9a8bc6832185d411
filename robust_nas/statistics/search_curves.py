"""How good searches are after a number of evaluations: the best value so far, and its regret, over repeated runs.

R runs, T evaluations each, a higher value is better. The interval of the mean over runs is a percentile bootstrap over
runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from robust_nas.errors import StudyError
from robust_nas.statistics.components import Floats


class CurvePoint(NamedTuple):
    """The mean over runs after a number of evaluations, with its interval, and the share of runs at the optimum."""

    evaluations: int
    mean: float
    low: float
    high: float
    optimal: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return self._asdict()


def best_so_far(values: ArrayLike) -> Floats:
    """Return `[R, T]`: the best of the first 1, 2, ... evaluations; NaN is a value that could not be measured.

    It stays NaN up to the first value.
    """
    return np.fmax.accumulate(np.asarray(values, dtype=float), axis=-1)


def curve(
    values: ArrayLike,
    at: Sequence[int],
    *,
    optimum: float | None = None,
    draws: int = 1000,
    confidence: float = 0.95,
    rng: Generator | None = None,
) -> list[CurvePoint]:
    """Return the mean of the best values `[R, T]` after `at` evaluations, or with `optimum` of the regrets.

    Regret is `optimum` minus the best value. `values` may be any measure that grows along a run, such as hypervolumes.
    Raises `StudyError` for a number of evaluations that the runs do not have, and for a run without a value there.
    """
    best = best_so_far(values)
    if best.ndim != 2 or not best.size:
        raise StudyError(f"got values {list(best.shape)}; [runs, evaluations] is needed")
    R, T = best.shape
    rng = np.random.default_rng(0) if rng is None else rng
    shares = rng.multinomial(R, np.full(R, 1 / R), size=draws) / R
    points = []
    for number in at:
        if not 1 <= number <= T or not np.isfinite(best[:, number - 1]).all():
            raise StudyError(
                f"got {number} evaluations; 1..{T} are needed, with a value in each of the {R} runs by then"
            )
        found = best[:, number - 1] if optimum is None else optimum - best[:, number - 1]
        low, high = np.quantile(shares @ found, [(1 - confidence) / 2, (1 + confidence) / 2])
        optimal = None if optimum is None else float(np.mean(found <= 0))
        points.append(CurvePoint(number, float(found.mean()), float(low), float(high), optimal))
    return points
