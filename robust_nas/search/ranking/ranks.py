"""Ranks and their sums. A candidate without a value ranks lowest; equal values share their mean rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rank_shares(values: Sequence[float | None]) -> Floats:
    """Return the rank of each value as a share of the group, in 0..1: (rank - 1/2) / n."""
    return shares_within(values, values)


def shares_within(values: Sequence[float | None], reference: Sequence[float | None]) -> Floats:
    """Return for each value the share of a reference sample below it, half of those that equal it among them."""
    sorted_reference = np.sort(_lowest(reference))
    numbers = _lowest(values)
    below = np.searchsorted(sorted_reference, numbers, "left")
    upto = np.searchsorted(sorted_reference, numbers, "right")
    return np.asarray((below + upto) / 2 / len(sorted_reference), dtype=np.float64)


def rank_within_band(
    scores: Sequence[float | None], params: Sequence[int], band: float
) -> list[float | None]:
    """Return the rank share of every candidate among those of similar size, itself included.

    Similar: parameters within a factor of 1 + `band`. None where a candidate has no score, or no other is in its band.
    """
    size = np.log(np.asarray(params, dtype=np.float64))
    numbers = _lowest(scores)
    shares: list[float | None] = []
    for score, own, value in zip(numbers, size, scores, strict=True):
        near = numbers[np.abs(size - own) <= np.log1p(band)]
        known = value is not None and len(near) > 1
        shares.append(
            float(((near < score).sum() + (near == score).sum() / 2) / len(near)) if known else None
        )
    return shares


def _lowest(values: Sequence[float | None]) -> Floats:
    """Return the values as numbers, -inf for one that is absent or not a number."""
    numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return np.where(np.isnan(numbers), -np.inf, numbers)
