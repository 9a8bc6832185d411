"""Statistics of trained networks, arrays in, numbers out: the variance over seeds and over images, each counted once.

`measurements.py` is the input, `components.py` the variance model that the other files use. Sources and coverage:
docs/methods/study-statistics.md. What scipy has is taken from there; own code says why in its file.
"""

from robust_nas.statistics.chance import AtChance, at_chance
from robust_nas.statistics.components import Estimates, Variance, estimate
from robust_nas.statistics.contrasts import (
    Contrast,
    Effect,
    contrast,
    contrasts,
    effect_of,
    equivalent,
    holm,
    linear_effect,
    with_equivalence,
)
from robust_nas.statistics.fronts import pareto, pareto_membership
from robust_nas.statistics.intervals import Interval, Summary, summary
from robust_nas.statistics.measurements import Measurements, factor_values
from robust_nas.statistics.optima import Optimum, interior_optimum
from robust_nas.statistics.power import smallest_effect
from robust_nas.statistics.trends import Slope, Trend, kendall, log2_slope, trend

__all__ = [
    "AtChance",
    "Contrast",
    "Effect",
    "Estimates",
    "Interval",
    "Measurements",
    "Optimum",
    "Slope",
    "Summary",
    "Trend",
    "Variance",
    "at_chance",
    "contrast",
    "contrasts",
    "effect_of",
    "equivalent",
    "estimate",
    "factor_values",
    "holm",
    "interior_optimum",
    "kendall",
    "linear_effect",
    "log2_slope",
    "pareto",
    "pareto_membership",
    "smallest_effect",
    "summary",
    "trend",
    "with_equivalence",
]
