"""Find the Pareto set of a cost and a response, and the probability of each configuration to be in it.

Own code: scipy has no Pareto set, and this one takes all bootstrap draws at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from robust_nas.errors import StudyError
from robust_nas.statistics.components import Floats, estimate
from robust_nas.statistics.measurements import Measurements, factor_values
from robust_nas.statistics.resampling import resampled_means


def pareto(cost: ArrayLike, value: ArrayLike) -> NDArray[np.bool_]:
    """Return `[P]`: whether no other point costs at most as much and is worth at least as much, one of them strictly.

    `value` of shape [..., P] gives [..., P]; `cost` is [P]. Equal points are both in.

    Raises `StudyError` where the numbers of points differ.
    """
    cost, value = np.asarray(cost, dtype=float), np.asarray(value, dtype=float)
    if cost.ndim != 1 or value.shape[-1:] != cost.shape:
        raise StudyError(
            f"costs {list(cost.shape)} and values {list(value.shape)}; needed: one cost for each value"
        )
    order = np.argsort(cost, kind="stable")
    ranked, costs = value[..., order], cost[order]
    first, last = np.searchsorted(costs, costs, "left"), np.searchsorted(costs, costs, "right")
    best = np.maximum.accumulate(ranked, axis=-1)  # of all that cost no more
    cheaper = np.concatenate([np.full((*value.shape[:-1], 1), -np.inf), best], axis=-1)[..., first]
    kept = (ranked > cheaper) & (ranked >= best[..., last - 1])
    front = np.empty(value.shape, dtype=bool)
    front[..., order] = kept
    return front


def pareto_membership(
    points: Sequence[Measurements], cost: str, key: str, draws: int = 1000, rng: Generator | None = None
) -> Floats:
    """Return `[P]`: how often each configuration is in the Pareto set (least `cost`, most `key`) of a bootstrap.

    `cost` names a factor such as `params` or `macs`.

    Raises `StudyError` where a configuration has no such factor, or `key` was not measured.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    means = resampled_means(estimate(points, key), draws, rng)
    return np.asarray(pareto(factor_values(points, cost), means).mean(axis=0))
