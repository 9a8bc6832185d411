"""Compare scores by inherited weights with training alone: Kendall's tau over the genotypes of a study.

The tau is undecided where a genotype is not above chance: one of its trained sizes, or its score, by Wilson's interval
over the images of the score. Scores of earlier versions recorded neither their images nor chance: the number of images
that was asked for and the chance of the study are taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from robust_nas import statistics
from robust_nas.errors import StudyError
from robust_nas.records import read_json
from robust_nas.statistics import Measurements
from robust_nas.statistics.proportions import wilson
from robust_nas.studies.config import StudyConfig
from robust_nas.studies.report.chance import Chance
from robust_nas.studies.run.folder import INHERITED, SCORES


def inherited_ranks(
    folder: Path, measured: Sequence[Measurements], config: StudyConfig, chance: Chance
) -> dict[str, Any] | None:
    """Return tau with its interval and the pairs of scores, or None where no scores were asked for."""
    if config.inherited is None or not (folder / INHERITED).is_file():
        return None
    options = config.analysis
    stored = read_json(folder / INHERITED, SCORES)
    scores = stored["scores"]
    sizes: dict[str, list[Measurements]] = {}
    for point in measured:
        sizes.setdefault(str(point.factors["genotype"]), []).append(point)
    scored = {genotype: points for genotype, points in sizes.items() if genotype in scores}
    pairs = [
        {
            "name": points[0].name + (f" and {len(points) - 1} more sizes" if len(points) > 1 else ""),
            "inherited": scores[genotype]["robust"],
            "standalone": fmean(float(point.values("robust").mean()) for point in points),
        }
        for genotype, points in scored.items()
    ]
    reason = chance.reason([point.name for points in scored.values() for point in points])
    if reason is None:
        known = {"images": stored["options"]["images"], "chance": chance.value}
        texts = {points[0].name: _at_chance({**known, **scores[name]}) for name, points in scored.items()}
        reason = next(
            (
                f"{name} is not above chance by its inherited weights: {text}"
                for name, text in texts.items()
                if text
            ),
            None,
        )
    tau, interval = _correlated(pairs, options.confidence, options.draws)
    return {"tau": tau, "interval": interval, "n": len(pairs), "pairs": pairs, "undecided": reason}


def _correlated(
    pairs: Sequence[Mapping[str, Any]], confidence: float, draws: int
) -> tuple[float | None, list[float] | None]:
    """Return tau and its interval; None where there are too few scores, or scores that are all equal."""
    scores, trained = ([pair[key] for pair in pairs] for key in ("inherited", "standalone"))
    try:
        tau, interval, _ = statistics.kendall(scores, trained, confidence, draws=draws)
    except StudyError:
        return None, None
    return tau, interval and list(interval)


def _at_chance(score: Mapping[str, Any]) -> str | None:
    """Return the accuracy of a score that is not above chance, in words, or None."""
    for key in ("clean", "robust"):
        low, high = wilson(round(score[key] * score["images"]), score["images"])
        if low <= score["chance"]:
            return (
                f"{key} accuracy {100 * score[key]:.1f} %, 95 % interval {100 * low:.1f} to {100 * high:.1f} %, "
                f"reaches down to chance, {100 * score['chance']:.1f} %"
            )
    return None
