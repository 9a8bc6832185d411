"""What scores a candidate of a sampled search: one file an evaluator. `EVALUATORS` knows them by name."""

from __future__ import annotations

from robust_nas.registry import Registry
from robust_nas.search.evaluators.evaluator import Evaluator

EVALUATORS = Registry(
    "evaluator",
    Evaluator,
    "robust_nas.search.evaluators",
    {
        "short-training": "short_training:ShortTraining",
        "train": "train:CommonTraining",
        "supernet": "supernet:InheritedWeights",
        "proxy": "proxy:ProxyScore",
        "zero-cost": "zero_cost:ZeroCostScore",
        "table": "table:TableValue",
    },
    group="robust_nas.evaluators",
)
