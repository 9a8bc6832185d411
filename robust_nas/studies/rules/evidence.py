"""The evidence of a study as rules see it, and how a status and its reason follow from an effect."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.random import Generator

from robust_nas.errors import StudyError
from robust_nas.statistics import Effect, Interval, Measurements, factor_values

Status = Literal["supported", "contradicted", "undecided"]

TOLERANCE = 0.10  # relative difference up to which two budgets count as one
ONE_SEED = "no configuration has two seeds, so the effect cannot be separated from the chance of training"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The results of a study.

    `key` is the response, `reference` the name of a configuration, `margin` the difference (a share) below which
    configurations count as equal; without one, "no difference" cannot be earned. `seed` starts every bootstrap.
    `at_chance` maps the name of every configuration that is not above chance to the accuracy that shows it.
    """

    points: Sequence[Measurements]
    reference: str | None = None
    key: str = "robust"
    confidence: float = 0.95
    margin: float | None = None
    draws: int = 1000
    seed: int = 0
    at_chance: Mapping[str, str] = field(default_factory=dict)

    def rng(self) -> Generator:
        """Return a fresh generator: a verdict does not depend on which rules were judged before it."""
        return np.random.default_rng(self.seed)

    @property
    def alpha(self) -> float:
        """Return 1 - confidence."""
        return 1 - self.confidence

    def reference_point(self, rule: str) -> Measurements:
        """Return the reference. Raises `StudyError` where the study names none, or none that was measured."""
        if self.reference is None:
            raise StudyError(f"rule {rule!r} compares with a reference; the study names none")
        found = {point.name: point for point in self.points}
        if self.reference not in found:
            raise StudyError(
                f"no point {self.reference!r} in this study; points: {', '.join(found) or 'none'}"
            )
        return found[self.reference]

    def not_above_chance(self, names: Collection[str] = ()) -> str | None:
        """Return why nothing follows from these configurations (all, without a name); None if they are above chance."""
        return not_above_chance(self.at_chance, names or [point.name for point in self.points])

    def pool(self, points: Sequence[Measurements]) -> list[Measurements]:
        """Return the configurations that share their seeds' variance in a comparison of `points`: those above chance.

        Trainings that learned nothing answer alike whatever their seed, so they say nothing about the others' spread.
        """
        own = {point.name for point in points}
        return [point for point in self.points if point.name in own or point.name not in self.at_chance]

    def refuse_unmeasured(self, rule: str, key: str) -> None:
        """Raise `StudyError` where a metric was not measured for every configuration."""
        for point in self.points:
            if key not in point.metrics:
                known = ", ".join(point.metrics) or "nothing"
                raise StudyError(f"rule {rule!r} needs {key!r}, which {point.name} lacks; measured: {known}")

    def refuse_unknown(self, rule: str, factor: str) -> None:
        """Raise `StudyError` where no configuration knows a factor; `depths` means `depths.0` and so on."""
        known = dict.fromkeys(key for point in self.points for key in point.factors)
        if not any(key == factor or key.startswith(f"{factor}.") for key in known):
            raise StudyError(
                f"rule {rule!r} needs the factor {factor!r}, which no configuration has; "
                f"factors: {', '.join(known) or 'none'}"
            )

    def same_budget(self, budget: str) -> list[Measurements]:
        """Return the configurations within 10 % of the reference's budget; without a reference, of the median's."""
        known = [point for point in self.points if point.has_number(budget)]
        if not known:
            return []
        reference = self.reference_point("budget") if self.reference is not None else None
        if reference is not None and reference.has_number(budget):
            target = reference.number(budget)
        else:
            target = float(np.median(factor_values(known, budget)))
        return [point for point in known if abs(point.number(budget) / target - 1) <= TOLERANCE]


def not_above_chance(at_chance: Mapping[str, str], names: Collection[str]) -> str | None:
    """Return the reason why nothing follows from configurations, or None where all of them are above chance."""
    found = [name for name in at_chance if name in names]
    if not found:
        return None
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{found[0]}{more} is not shown to be above chance, so nothing can be concluded: {at_chance[found[0]]}"


def verdict_of(evidence: Evidence, effect: Effect, claim: str, unit: str = "share") -> tuple[Status, str]:
    """Return status and reason of the claim "effect > 0", where `claim` names the effect.

    Supported or contradicted by a two-sided test; contradicted too where the effect lies within the margin (TOST).
    """
    measured = f"{claim}: {format_evidence(effect.effect, effect.interval, unit, evidence.confidence)}"
    if effect.p is None and effect.includes_seeds:
        return "undecided", f"{measured}; nothing varied over seeds and images, so nothing can be concluded"
    if effect.p is None or not effect.includes_seeds:
        return "undecided", f"{measured}; {ONE_SEED}"
    margin = evidence.margin if unit == "share" else None
    if effect.p <= evidence.alpha:
        return ("supported" if effect.effect > 0 else "contradicted"), f"{measured}; it excludes 0"
    if margin is not None and effect.within(margin) <= evidence.alpha:
        equal = f"equal within the margin of {100 * margin:.2f} pp (two one-sided tests)"
        return "contradicted", f"{measured}; {equal}"
    return "undecided", f"{measured}; it includes 0"


def format_evidence(effect: float, interval: Interval | None, unit: str, confidence: float) -> str:
    """Return an effect with its interval as text, in percentage points where it is a share."""
    scale, name, digits = (100, "pp", 2) if unit == "share" else (1, unit, 3)
    text = f"{scale * effect:+.{digits}f} {name}"
    if interval is None:
        return text
    low, high = (scale * bound for bound in interval)
    return f"{text}, {100 * confidence:g} % interval {low:+.{digits}f} to {high:+.{digits}f}"


def count_cases(points: Sequence[Measurements]) -> str:
    """Return the number of cases as text: `5 configurations, 3 seeds each, 1000 images`."""
    seeds = sorted({len(point.seeds) for point in points})
    each = (
        f"{seeds[0]} seed{'s' * (seeds[0] > 1)} each"
        if len(seeds) == 1
        else f"{seeds[0]} to {seeds[-1]} seeds"
    )
    images = max(point.images for point in points)
    return f"{len(points)} configurations, {each}" + (f", {images} images" if images else "")


def ratios(points: Sequence[Measurements], reference: Measurements | None = None) -> str:
    """Return `params 0.98 to 1.02x, MACs 0.51 to 2.04x`, relative to the reference or to the smallest."""
    parts = []
    for budget, name in (("params", "params"), ("macs", "MACs")):
        if all(point.has_number(budget) for point in points):
            values = factor_values(points, budget)
            of = (
                values.min()
                if reference is None or not reference.has_number(budget)
                else reference.number(budget)
            )
            low, high = values.min() / of, values.max() / of
            parts.append(
                f"{name} {low:.2f}x" if np.isclose(low, high) else f"{name} {low:.2f} to {high:.2f}x"
            )
    return ", ".join(parts) or "budgets unknown"


def budget_held(points: Sequence[Measurements], budget: str) -> str:
    """Return in words that one budget is held, and how both vary."""
    return f"{'MACs' if budget == 'macs' else budget} within 10 %: {ratios(points)} of the smallest"
