"""The losses of both halves: they fell, they have settled, and what the weights learned holds on the alphas' half.

    fall    mean adversarial loss of the alphas' half in the first quarter of the steps minus that in the last
    late    that in the third quarter minus that in the last: a part of the fall
    lost    (loss of the alphas' half - loss of the weights' half) / (ln K - loss of the weights' half), last quarter

WARN where the loss did not fall (by twice its standard error), where more than a quarter of the fall came late, and
where more than half of what the weights' half learned is lost. The last is not asked where the weights have a loss of
their own, which is of another kind. K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from robust_nas.search.strategy import Record
from robust_nas.search.verdict.check import SearchCheck, SearchFinding
from robust_nas.search.verdict.evidence import SearchEvidence
from robust_nas.search.verdict.thresholds import LATE_FALL, LOST_ON_ALPHAS_HALF

COLUMN = "loss_adversarial"
LEAST = 8  # records: two a quarter


class Losses(SearchCheck):
    """The share of the loss's fall that came in the last quarter of the search of the result."""

    title: ClassVar[str] = "losses of both halves"
    allowed: ClassVar[str] = f"at most {LATE_FALL:g} of the fall in the last quarter"
    kinds: ClassVar[tuple[str, ...]] = ("one-shot",)
    name: Literal["losses"] = "losses"

    def run(self, evidence: SearchEvidence) -> SearchFinding:
        """Return WARN for losses that do not fit a decision."""
        records = evidence.chosen.records if evidence.seeds else ()
        adversarial = _column(records, COLUMN)
        if len(adversarial) < LEAST:
            text = (
                f"{len(adversarial)} records have an adversarial loss of the alphas' half, {LEAST} are needed"
            )
            return self.finding(evidence, "NOT RUN", text, next_step="search for more steps (search.epochs)")
        first, _, third, last = np.array_split(adversarial, 4)
        fall, late = first.mean() - last.mean(), third.mean() - last.mean()
        weights = _column(records, "loss_weights")
        comparable = len(weights) >= LEAST and evidence.strategy.weight_loss is None
        own = float(np.array_split(weights, 4)[-1].mean()) if comparable else None
        details = {"first": float(first.mean()), "last": float(last.mean()), "weights": own}
        text = f"adversarial loss of the alphas' half {first.mean():.2f} -> {last.mean():.2f}"
        text += "" if own is None else f", of the weights' half {own:.2f}"
        if fall <= 2 * _error(first, last):
            problem, step = ": it did not fall", "train the weights longer or with a larger learning rate"
            return self.finding(evidence, "WARN", text + problem, next_step=step, details=details)
        value = float(late / fall)
        if value > LATE_FALL and late > 2 * _error(third, last):
            problem = f": {value:.0%} of the fall came in the last quarter"
            step = "search longer (search.epochs): the alphas judge weights that are still changing"
            return self.finding(evidence, "WARN", text + problem, value, next_step=step, details=details)
        if own is not None:
            lost = (last.mean() - own) / max(math.log(evidence.classes) - own, 1e-9)
            if own < math.log(evidence.classes) and lost > LOST_ON_ALPHAS_HALF:
                problem = f": {lost:.0%} of what the weights' half learned is lost on the alphas' half"
                step = "search on more images (data.limit): the supernet knows its own half by heart"
                return self.finding(evidence, "WARN", text + problem, value, next_step=step, details=details)
        return self.finding(evidence, "PASS", text, value, details=details)


def _column(records: Sequence[Record], key: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = [record.get(key) for record in records]
    return np.array(
        [value for value in values if value is not None and math.isfinite(value)], dtype=np.float64
    )


def _error(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Return the standard error of a difference of means."""
    return math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
