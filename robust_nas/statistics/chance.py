"""Find out whether the networks of a configuration are above chance: whether an interval reaches down to it.

    clean    every training's own interval over the images (Wilson's), and from 3 seeds on that of the mean
    robust   the interval of the mean over seeds and images from 3 seeds on; below, every training's own

A mean hides one training that learned nothing among several that did; its own clean accuracy shows it. With fewer than
3 seeds the mean has no interval over seeds. Both are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from robust_nas.statistics.intervals import Interval, Summary, summary
from robust_nas.statistics.measurements import Measurements
from robust_nas.statistics.proportions import wilson

KEYS = ("clean", "robust")


class AtChance(NamedTuple):
    """An accuracy with an interval that reaches down to chance; `seed` is None for the mean over seeds. Shares 0..1."""

    key: str
    seed: int | None
    accuracy: float
    interval: Interval
    chance: float

    def text(self, confidence: float) -> str:
        """Return the accuracy, its interval and chance in words."""
        low, high = (100 * bound for bound in self.interval)
        whose = "" if self.seed is None else f" of seed {self.seed}"
        return (
            f"{self.key} accuracy{whose} {100 * self.accuracy:.1f} %, {100 * confidence:g} % interval "
            f"{low:.1f} to {high:.1f} %, reaches down to chance, {100 * self.chance:.1f} %"
        )


def at_chance(
    point: Measurements,
    chance: float,
    confidence: float = 0.95,
    *,
    draws: int = 1000,
    known: Mapping[str, Summary] | None = None,
) -> AtChance | None:
    """Return the first accuracy of a configuration that is not above chance, or None where all are.

    Accuracies that were not measured are not looked at. `known` are summaries by key that were made already, with the
    same confidence and draws.
    """
    for key in KEYS:
        if key in point.outcomes:
            whole = known[key] if known and key in known else summary(point, key, confidence, draws=draws)
            for found in _intervals(point, whole, chance, confidence):
                if found.interval[0] <= chance:
                    return found
    return None


def _intervals(point: Measurements, whole: Summary, chance: float, confidence: float) -> list[AtChance]:
    key = whole.key
    found = [] if whole.interval is None else [AtChance(key, None, whole.mean, whole.interval, chance)]
    if key == "clean" or whole.interval is None:
        least = int(
            np.argmin(whole.values)
        )  # of equally many images, the lowest accuracy has the lowest bound
        right = int(point.outcomes[key][least].sum())
        interval = wilson(right, point.images, confidence)
        found.append(AtChance(key, point.seeds[least], whole.values[least], interval, chance))
    return found
