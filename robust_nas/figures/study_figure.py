"""What the figures of a study share: they draw its analysis, and their captions say what was measured."""

from __future__ import annotations

from typing import Any, ClassVar

from robust_nas.figures import study_points
from robust_nas.figures.figure import Figure, Job, Record

LISTED = 3  # configurations at chance that a caption names
METRIC = {"stable": "stability"}  # a response's name in `metrics`, where it differs


class StudyFigure(Figure):
    """Base of the figures of an analysis. It needs a configuration with the study's response."""

    of: ClassVar[Job] = "study"
    heading: ClassVar[str] = ""  # in the report

    def has_data(self, record: Record) -> bool:
        """Return whether a configuration was measured, and the figure's own data are there."""
        return bool(measured(record)) and super().has_data(record) and self.applies(record)

    def applies(self, record: Record) -> bool:
        """Return whether an analysis with measured configurations has something to show."""
        return True

    def title(self, record: Record) -> str:
        """Return the heading of the figure in the report."""
        return self.heading

    def says(self, record: Record) -> str:
        """Return what the figure shows, in sentences."""
        raise NotImplementedError(f"{type(self).__name__} says nothing of itself")

    def caption(self, record: Record, about: str) -> str:
        """Return what is shown, `about` (by default attacks, eps, images and seeds), and what is not above chance."""
        return f"{self.says(record)} {about or setting(record)}{_at_chance(record)}"


def response_of(tree: Record) -> str:
    """Return the key of the study's response in the metrics of a point."""
    response = str(tree["response"])
    return METRIC.get(response, response)


def response_name(tree: Record) -> str:
    """Return the words for the study's response."""
    return study_points.title(response_of(tree))


def measured(tree: Record) -> list[Record]:
    """Return the points that have the study's response."""
    metric = response_of(tree)
    return [point for point in tree["points"] if study_points.raw(point, metric)[0] is not None]


def setting(tree: Record) -> str:
    """Return the sentence that every caption ends with: attacks, budget, images, seeds."""
    threat, data = tree["threat_model"], tree["data"]
    seeds = ", ".join(map(str, tree["seeds"]))
    return (
        f"{', '.join(map(str, tree['attacks']))}; {threat['norm']} eps {threat['eps']:.4g}; {data['images']:,} "
        f"test images of {data['dataset']}; {'seeds' if len(tree['seeds']) > 1 else 'seed'} {seeds}."
    )


def _at_chance(tree: Record) -> str:
    """Return the sentence that names configurations at chance, or nothing."""
    names = [study_points.name(point, 40) for point in tree["points"] if point.get("at_chance")]
    if not names:
        return ""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f" Not above chance, so nothing is concluded from them: {', '.join(names[:LISTED])}{more}."


def level(tree: Record) -> str:
    """Return the words for the study's intervals."""
    return f"{100 * tree['confidence']:g}% intervals over seeds and images"


def is_uniform(point: Record) -> bool:
    """Return whether all stages have one depth and one widening factor (channels that double from stage to stage)."""
    depths, channels = stage_numbers(point, "depths"), stage_numbers(point, "widths")
    widths = {channel / 2**stage for stage, channel in enumerate(channels)}
    return len(depths) > 1 and len(set(depths)) == 1 and len(widths) == 1


def stage_numbers(point: Record, key: str) -> list[float]:
    """Return `depths.0`, `depths.1`, ... (or widths) of a point's factors, as far as they are known."""
    factors: dict[str, Any] = point.get("factors") or {}
    found: list[float] = []
    while f"{key}.{len(found)}" in factors:
        found.append(factors[f"{key}.{len(found)}"])
    return found
