"""The statistics of width and depth studies: seeds and images kept apart and put together.

`components.py` says where uncertainty comes from, the other files use it. docs/methods/study-statistics.md explains.
"""

from robust_nas.statistics.components import estimate
from robust_nas.statistics.contrasts import (
    Contrast,
    contrast,
    contrasts,
    equivalent,
    holm,
    with_equivalence,
)
from robust_nas.statistics.fronts import pareto, pareto_membership
from robust_nas.statistics.intervals import Summary, summary
from robust_nas.statistics.optima import Optimum, interior_optimum
from robust_nas.statistics.power import smallest_effect
from robust_nas.statistics.trends import Slope, Trend, kendall, log2_slope, trend

__all__ = [
    "Contrast",
    "Optimum",
    "Slope",
    "Summary",
    "Trend",
    "contrast",
    "contrasts",
    "equivalent",
    "estimate",
    "holm",
    "interior_optimum",
    "kendall",
    "log2_slope",
    "pareto",
    "pareto_membership",
    "smallest_effect",
    "summary",
    "trend",
    "with_equivalence",
]
