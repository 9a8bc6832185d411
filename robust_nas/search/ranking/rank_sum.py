"""Sums of ranks: scores of different units are added by the places that they give (Borda count).

r_i = (rank_i - 1/2) / n,    rank 1 the lowest; equal values share their mean rank
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from robust_nas.search.ranking.method import RankingContext
from robust_nas.search.ranking.ranks import rank_shares
from robust_nas.spaces import CellArchitecture

Floats = npt.NDArray[np.float64]


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the correlation of two rankings of the same candidates; 0 where one of them has no differences."""
    a, b = rank_shares(first), rank_shares(second)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def zero_cost(candidates: Sequence[CellArchitecture], context: RankingContext) -> Floats:
    """Return the zero-cost score `[n]` of the candidates, itself a sum of ranks within them."""
    from robust_nas.search.ranking import RANKINGS

    return np.array(RANKINGS.make("zero-cost").score(candidates, context)["score"], dtype=np.float64)
