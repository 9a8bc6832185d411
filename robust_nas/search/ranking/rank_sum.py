"""Sums of ranks: scores of different units are added by the places that they give (Borda count).

r_i = (rank_i - 1/2) / n,    rank 1 the lowest; equal values share their mean rank
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robust_nas.search.ranking.ranks import rank_shares


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the correlation of two rankings of the same candidates; 0 where one of them has no differences."""
    a, b = rank_shares(first), rank_shares(second)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
