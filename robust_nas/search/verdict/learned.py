"""The supernet learned: its accuracies on the alphas' half, clean and attacked, are above chance.

    above chance: the lower bound of Wilson's 95 % interval exceeds the share of the most frequent class

A supernet at chance has no opinion about its operations: its alphas followed noise. FAIL, also where the accuracy is
NaN. A search of another seed whose supernet did not learn is a WARN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from robust_nas.search.verdict.check import SearchCheck, SearchFinding
from robust_nas.search.verdict.evidence import SearchEvidence
from robust_nas.search.verdict.fitness import AGAIN, known

TRAIN = (
    "train the supernet longer (search.epochs), on more images (data.limit), with a larger "
    "search.weights.learning_rate, or attack it at a smaller eps"
)


class Learned(SearchCheck):
    """The robust accuracy of the supernet on the alphas' half."""

    title: ClassVar[str] = "supernet above chance"
    allowed: ClassVar[str] = "interval above chance"
    kinds: ClassVar[tuple[str, ...]] = ("one-shot",)
    name: Literal["learned"] = "learned"

    def run(self, evidence: SearchEvidence) -> SearchFinding:
        """Return FAIL where the supernet of the result is at chance."""
        measured = known(evidence)
        if not measured or measured[0][0] is not evidence.chosen:
            text = "the supernet's accuracies were not measured"
            return self.finding(evidence, "NOT RUN", text, next_step=AGAIN)
        texts = {one.seed: _at_chance(found) for one, found in measured}
        chosen, found = measured[0]
        value, images = found["supernet"]["robust"], found["images"]
        interval = _interval(value, images)
        if texts[chosen.seed]:
            text = f"the supernet did not learn: {texts[chosen.seed]}"
            return self.finding(
                evidence, "FAIL", text, value, next_step=TRAIN, interval=interval, images=images
            )
        other = next((seed for seed, text in texts.items() if text), None)
        if other is not None:
            text = f"the supernet of seed {other}, which is not the result's, did not learn: {texts[other]}"
            return self.finding(
                evidence, "WARN", text, value, next_step=TRAIN, interval=interval, images=images
            )
        text = (
            f"clean {found['supernet']['clean']:.1%}, robust {value:.1%} of {images} images "
            f"({found['attack']}), chance {found['chance']:.1%}"
        )
        return self.finding(evidence, "PASS", text, value, interval=interval, images=images)


def _interval(accuracy: float | None, images: int) -> tuple[float, float]:
    from robust_nas.statistics.proportions import wilson

    if accuracy is None or not math.isfinite(accuracy):
        return 0.0, 1.0
    return wilson(round(accuracy * images), images)


def _at_chance(found: Mapping[str, Any]) -> str:
    """Return which accuracy is not above chance, in words; empty where both are."""
    for key in ("clean", "robust"):
        accuracy = found["supernet"][key]
        low, high = _interval(accuracy, found["images"])
        if low <= found["chance"]:
            shown = "not finite" if accuracy is None else f"{accuracy:.1%}"
            return (
                f"{key} accuracy {shown} of {found['images']} images ({low:.1%} to {high:.1%}), "
                f"chance {found['chance']:.1%}"
            )
    return ""
