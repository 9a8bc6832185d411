"""Find the chance of a study's images, and the configurations whose accuracies are not above it.

Chance is the share of the largest class among the evaluated images, or 1/K where that is more. All trials of a study
are evaluated on the same images, so the chance that one recorded is that of all. Trials of earlier versions recorded
none: then the study's test images are read again, and are believed where their checksum is that of the trials. Where
neither is possible chance is unknown, and no configuration counts as above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robust_nas.errors import RobustNASError
from robust_nas.statistics import Contrast, Measurements, Summary, at_chance
from robust_nas.studies.config import StudyConfig
from robust_nas.studies.rules import not_above_chance

READ_AGAIN = (
    "The trials are of a version that did not record chance: it is counted on their test images, read again."
)


@dataclass(frozen=True, kw_only=True)
class Chance:
    """Chance (0..1, None where unknown), the configurations not above it with the accuracy that shows it, a limit."""

    value: float | None
    below: Mapping[str, str]
    note: str | None = None

    def reason(self, names: Sequence[str]) -> str | None:
        """Return why nothing follows from these configurations, or None where all of them are above chance."""
        return not_above_chance(self.below, names)

    def above(self, points: Sequence[Measurements]) -> list[Measurements]:
        """Return the configurations that are above chance."""
        return [point for point in points if point.name not in self.below]

    def withhold(self, contrast: Contrast) -> Contrast:
        """Return the contrast, without p values and equivalence where one of the two is not above chance."""
        if self.reason((contrast.a, contrast.b)) is None:
            return contrast
        result = replace(contrast.result, p=None)
        return replace(contrast, result=result, p_holm=None, equivalent=None)


def find_chance(
    config: StudyConfig,
    outcomes: Sequence[Mapping[str, Any]],
    points: Sequence[Measurements],
    summaries: Mapping[str, Mapping[str, Summary]],
) -> Chance:
    """Return the chance of a study with these outcomes (at least one), and what is not above it.

    summaries: by configuration and key, with the confidence and draws of the study's analysis.
    """
    recorded = [outcome["chance"] for outcome in outcomes if "chance" in outcome]
    note = None
    try:
        value = recorded[0] if recorded else _read_again(config, outcomes[0])
        note = None if recorded else READ_AGAIN
    except RobustNASError as error:
        unknown = (
            "chance is unknown: the trials are of a version that did not record it, and their images cannot be "
            f"read again ({str(error)[:200]}); one more seed, run with --resume, records it"
        )
        return Chance(
            value=None,
            below={point.name: unknown for point in points},
            note=f"No conclusion is drawn, as {unknown}.",
        )
    options = config.analysis
    found = {
        point.name: at_chance(
            point, value, options.confidence, draws=options.draws, known=summaries[point.name]
        )
        for point in points
    }
    below = {name: each.text(options.confidence) for name, each in found.items() if each is not None}
    return Chance(value=value, below=below, note=note)


def _read_again(config: StudyConfig, outcome: Mapping[str, Any]) -> float:
    """Return chance among the images of an outcome. Raises `DataError` where they cannot be had."""
    from robust_nas.data import load_dataset, random_indices
    from robust_nas.errors import DataError
    from robust_nas.evaluation.accuracy import chance_of

    dataset = load_dataset(config.data, seed=config.seed)
    if not dataset.has_checksum(outcome["dataset_checksum"]):
        raise DataError(f"{dataset.name} holds other images here than where the trials ran")
    order = random_indices(len(dataset.test), config.evaluation.images, config.seed)
    return chance_of(dataset.test.labels[order[: outcome["images"]]], dataset.classes)
