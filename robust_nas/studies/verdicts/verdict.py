"""A verdict on a rule: supported, contradicted or undecided, with what decides it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.random import Generator

from robust_nas.errors import StudyError
from robust_nas.statistics.contrasts import Contrast, Effect
from robust_nas.statistics.intervals import Interval
from robust_nas.statistics.optima import Optimum
from robust_nas.studies.points import Point, factor_values, point_named

Status = Literal["supported", "contradicted", "undecided"]

TOLERANCE = 0.10  # how far budgets may differ and still count as one


@dataclass(frozen=True, kw_only=True)
class RuleVerdict:
    """What a study says of a rule. Never that it is proved.

    `effect` and `interval` are in `unit`: a share 0..1 of images where it is `share`, else what it says.
    `comparisons` are exploratory contrasts behind it, corrected by Holm among themselves.
    """

    rule: str
    statement: str
    status: Status
    effect: float | None
    interval: Interval | None
    unit: str
    n: str
    held: str
    reason: str
    source: str
    comparisons: tuple[Contrast, ...] = ()
    optimum: Optimum | None = None  # where the rule is about one

    def to_dict(self) -> dict[str, Any]:
        """As the analysis holds it; `comparisons` go to its contrasts."""
        return {
            "rule": self.rule,
            "statement": self.statement,
            "status": self.status,
            "effect": self.effect,
            "interval": None if self.interval is None else list(self.interval),
            "unit": self.unit,
            "n": self.n,
            "held": self.held,
            "reason": self.reason,
            "source": self.source,
        }


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A finished study, as rules see it.

    `key` is the response, `reference` a point's name, `margin` the difference (a share) below which configurations
    count as equal; without one, "no difference" cannot be earned. `seed` starts every bootstrap.
    """

    points: Sequence[Point]
    reference: str | None = None
    key: str = "robust"
    confidence: float = 0.95
    margin: float | None = None
    draws: int = 1000
    seed: int = 0

    def rng(self) -> Generator:
        """A fresh generator: a verdict does not depend on which rules were asked before it."""
        return np.random.default_rng(self.seed)

    @property
    def alpha(self) -> float:
        """1 - confidence."""
        return 1 - self.confidence

    def reference_point(self, rule: str) -> Point:
        """The reference.

        Raises `StudyError` where the study names none, or none of its points.
        """
        if self.reference is None:
            raise StudyError(f"rule {rule!r} compares with a reference; the study names none")
        return point_named(self.points, self.reference)

    def measured(self, rule: str, key: str | None = None) -> None:
        """Raises `StudyError` where the response was not measured for every point."""
        key = self.key if key is None else key
        for point in self.points:
            if key not in point.metrics:
                known = ", ".join(point.metrics) or "nothing"
                raise StudyError(f"rule {rule!r} needs {key!r}, which {point.name} lacks; measured: {known}")


Rule = Callable[[Evidence], list[RuleVerdict]]


def decided(evidence: Evidence, effect: Effect, what: str, unit: str = "share") -> tuple[Status, str]:
    """Status and reason of the claim "effect > 0", where `what` names the effect.

    Supported or contradicted by a two-sided test; contradicted too where the effect lies within the margin (TOST).
    """
    said = f"{what}: {told(effect.effect, effect.interval, unit, evidence.confidence)}"
    if effect.p is None and effect.includes_seeds:
        return "undecided", f"{said}; nothing varied over seeds and images, so nothing can be told"
    if effect.p is None or not effect.includes_seeds:
        return (
            "undecided",
            f"{said}; no configuration has two seeds, so chance of training cannot be told from effect",
        )
    margin = evidence.margin if unit == "share" else None
    if effect.p <= evidence.alpha:
        return ("supported" if effect.effect > 0 else "contradicted"), f"{said}; it excludes 0"
    if margin is not None and effect.within(margin) <= evidence.alpha:
        return (
            "contradicted",
            f"{said}; equal within the margin of {100 * margin:.2f} pp (two one-sided tests)",
        )
    return "undecided", f"{said}; it includes 0"


def told(effect: float, interval: Interval | None, unit: str, confidence: float) -> str:
    """An effect with its interval, in percentage points where it is a share."""
    scale, name, digits = (100, "pp", 2) if unit == "share" else (1, unit, 3)
    text = f"{scale * effect:+.{digits}f} {name}"
    if interval is None:
        return text
    low, high = (scale * bound for bound in interval)
    return f"{text}, {100 * confidence:g} % interval {low:+.{digits}f} to {high:+.{digits}f}"


def counted(points: Sequence[Point]) -> str:
    """`5 configurations, 3 seeds each, 1000 images`."""
    seeds = sorted({len(point.seeds) for point in points})
    each = (
        f"{seeds[0]} seed{'s' * (seeds[0] > 1)} each"
        if len(seeds) == 1
        else f"{seeds[0]} to {seeds[-1]} seeds"
    )
    images = max(point.images for point in points)
    return f"{len(points)} configurations, {each}" + (f", {images} images" if images else "")


def ratios(points: Sequence[Point], reference: Point | None = None) -> str:
    """`params 0.98 to 1.02x, MACs 0.51 to 2.04x`, relative to the reference or to the smallest point."""
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


def at_budget(points: Sequence[Point], budget: str, target: float) -> list[Point]:
    """Those whose `budget` (`params` or `macs`) is within 10 % of `target`."""
    known = [point for point in points if point.has_number(budget)]
    return [point for point in known if abs(point.number(budget) / target - 1) <= TOLERANCE]


def one_budget(evidence: Evidence, budget: str) -> list[Point]:
    """The points within 10 % of the reference's budget; without a reference, of the median's."""
    known = [point for point in evidence.points if point.has_number(budget)]
    if not known:
        return []
    reference = evidence.reference_point("budget") if evidence.reference is not None else None
    if reference is not None and reference.has_number(budget):
        target = reference.number(budget)
    else:
        target = float(np.median(factor_values(known, budget)))
    return at_budget(known, budget, target)
