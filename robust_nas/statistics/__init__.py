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
from robust_nas.statistics.hypervolume import hypervolume
from robust_nas.statistics.intervals import Interval, Summary, summary
from robust_nas.statistics.measurements import Measurements, factor_values
from robust_nas.statistics.optima import Optimum, interior_optimum
from robust_nas.statistics.power import smallest_effect
from robust_nas.statistics.rank_agreement import (
    MEASURES,
    Agreement,
    Estimate,
    agreements,
    population_weights,
)
from robust_nas.statistics.search_curves import CurvePoint, best_so_far, curve
from robust_nas.statistics.trends import Slope, Trend, kendall, log2_slope, trend

__all__ = [
    "MEASURES",
    "Agreement",
    "AtChance",
    "Contrast",
    "CurvePoint",
    "Effect",
    "Estimate",
    "Estimates",
    "Interval",
    "Measurements",
    "Optimum",
    "Slope",
    "Summary",
    "Trend",
    "Variance",
    "agreements",
    "at_chance",
    "best_so_far",
    "contrast",
    "contrasts",
    "curve",
    "effect_of",
    "equivalent",
    "estimate",
    "factor_values",
    "holm",
    "hypervolume",
    "interior_optimum",
    "kendall",
    "linear_effect",
    "log2_slope",
    "pareto",
    "pareto_membership",
    "population_weights",
    "smallest_effect",
    "summary",
    "trend",
    "with_equivalence",
]
