"""Rank architectures before they are trained in full: one file a method. `RANKINGS` knows them by name."""

from __future__ import annotations

from robust_nas.registry import Registry
from robust_nas.search.ranking.method import RankingMethod

RANKINGS = Registry(
    "ranking method",
    RankingMethod,
    "robust_nas.search.ranking",
    {
        "zero-cost": "zero_cost:ZeroCost",
        "train": "train:TrainRanking",
        "supernet": "supernet:SupernetRanking",
    },
    group="robust_nas.rankings",
)
