"""Hold every configuration of a study against its reference, corrected together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robust_nas import statistics
from robust_nas.statistics import Contrast, Measurements
from robust_nas.studies.config import Analysis
from robust_nas.studies.report.chance import Chance


def exploratory(
    measured: Sequence[Measurements], key: str, options: Analysis, reference: str, chance: Chance
) -> list[Contrast]:
    """Return the contrasts of one metric with the reference, by Holm's correction over all; none without it."""
    base = [point for point in measured if point.name == reference]
    pairs = [(point, base[0]) for point in measured if base and point is not base[0]]
    sound = [pair for pair in pairs if chance.reason([point.name for point in pair]) is None]
    unsound = [pair for pair in pairs if pair not in sound]
    found = [
        contrast
        for group, pool in ((sound, chance.above(measured)), (unsound, measured))
        if group
        for contrast in statistics.contrasts(group, key, pool, options.confidence, "exploratory")
    ]
    return statistics.with_equivalence(statistics.holm(found), options.equivalence_margin)


def contrast_tree(contrast: Contrast, chance: Chance) -> dict[str, Any]:
    """Return the plain values of a contrast, and why nothing follows from it (None: it does)."""
    reason = chance.reason((contrast.a, contrast.b))
    return {**chance.withhold(contrast).to_dict(), "undecided": reason}
