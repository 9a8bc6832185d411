"""Objectives and constraints of a sampled search, the order that they put candidates in, and the rule that takes one.

Gains are the objectives with the sign that makes a higher one better. Constraints follow Deb (2000): a candidate within
all limits is better than one outside, of two outside the one that violates them less; only then do gains count. The
violation is the sum of the distances to the windows, each relative to the width of its window (our choice).

With one objective the order is that of its gain. With several: by front (non-dominated sorting), and within a front by
crowding distance, the larger one first (both Deb, Pratap, Agarwal and Meyarivan, 2002).

The knee of a Pareto set is the point of the largest sum of gains, each scaled to 0..1 over the set: with two objectives
the one farthest from the line through the two ends (after Das, 1999; the scaling is our choice).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from robust_nas.statistics.hypervolume import hypervolume

Direction = Literal["max", "min"]
Take = Literal["best", "knee"]


class Judged(Protocol):
    """What the order of candidates depends on."""

    @property
    def gains(self) -> tuple[float, ...] | None:
        """Return the objectives, higher is better; None where one of them is no finite number."""

    @property
    def violation(self) -> float:
        """Return how far the candidate is from the constraints; 0 where it is within them."""


class Judgement(NamedTuple):
    """Gains and violation of a record."""

    gains: tuple[float, ...] | None
    violation: float


J = TypeVar("J", bound=Judged)


@dataclass(frozen=True)
class Goal:
    """What a search wants: objectives by column, windows of columns, and the rule that takes the result."""

    objectives: Mapping[str, Direction]
    constraints: Mapping[str, tuple[float, float]]
    take: Take = "best"

    def judge(self, record: Mapping[str, Any]) -> Judgement:
        """Return the gains of a record and its distance from the constraints; a missing number violates without end."""
        signed = [(record.get(key), 1.0 if way == "max" else -1.0) for key, way in self.objectives.items()]
        gains = tuple(sign * value for value, sign in signed if _is_number(value))
        violation = 0.0
        for key, (low, high) in self.constraints.items():
            value = record.get(key)
            if not _is_number(value):
                violation = math.inf
            elif not low <= value <= high:
                violation += max(low - value, value - high) / ((high - low) or 1.0)
        return Judgement(gains if len(gains) == len(signed) else None, violation)

    def is_better(self, a: Judged, b: Judged) -> bool:
        """Return whether `a` dominates `b`: with one objective, whether it is better."""
        if a.gains is None or b.gains is None:
            return a.gains is not None
        if a.violation != b.violation:
            return a.violation < b.violation
        return a.gains != b.gains and all(one >= other for one, other in zip(a.gains, b.gains, strict=True))

    def ordered(self, candidates: Sequence[J]) -> list[J]:
        """Return those that have gains, the best first; equals keep their order."""
        scored = [one for one in candidates if one.gains is not None]
        if len(self.objectives) == 1:
            return sorted(scored, key=lambda one: (one.violation, tuple(-gain for gain in one.gains or ())))
        if not scored:
            return []
        gains, violation = _arrays(scored)
        fronts = _fronts(gains, violation)
        crowding = np.zeros(len(scored))
        for front in range(int(fronts.max()) + 1):
            members = np.flatnonzero(fronts == front)
            crowding[members] = _crowding(gains[members])
        return [scored[i] for i in np.lexsort((np.arange(len(scored)), -crowding, fronts))]

    def front(self, candidates: Sequence[J]) -> list[J]:
        """Return the candidates with gains that no other one dominates, in their order; equals are all in."""
        scored = [one for one in candidates if one.gains is not None]
        if not scored:
            return []
        dominated = np.asarray(_dominates(*_arrays(scored)).any(axis=0))
        return [one for one, out in zip(scored, dominated, strict=True) if not out]

    def within(self, candidates: Sequence[J]) -> list[J]:
        """Return the candidates with gains that are within all constraints."""
        return [one for one in candidates if one.gains is not None and one.violation == 0]

    def taken(self, candidates: Sequence[J]) -> J | None:
        """Return the result by the rule, the first of equals; None where no candidate is within the constraints."""
        rules: dict[Take, Callable[[Sequence[J]], J]] = {"best": _best, "knee": _knee}
        front = self.front(self.within(candidates))
        return rules[self.take](front) if front else None

    def hypervolume(
        self, candidates: Sequence[Judged], reference: Mapping[str, float]
    ) -> tuple[dict[str, float], float]:
        """Return the reference point and the exact volume between it and the front of the candidates.

        Without a reference it is the worst value of every objective among the candidates. What is not better than the
        reference in every objective adds nothing.
        """
        gains, _ = _arrays(candidates)
        signs = [1.0 if way == "max" else -1.0 for way in self.objectives.values()]
        worst = (
            [sign * reference[key] for key, sign in zip(self.objectives, signs, strict=True)]
            if reference
            else gains.min(axis=0).tolist()
        )
        point = {key: sign * value for key, sign, value in zip(self.objectives, signs, worst, strict=True)}
        return point, hypervolume(gains, worst)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _best(front: Sequence[J]) -> J:
    """Return the candidate with the highest first gain, of these the one with the highest second, and so on."""
    return max(front, key=lambda one: one.gains or ())


def _knee(front: Sequence[J]) -> J:
    gains, _ = _arrays(front)
    low, high = gains.min(axis=0), gains.max(axis=0)
    scaled = (gains - low) / np.where(high > low, high - low, 1.0)
    return front[int(scaled.sum(axis=1).argmax())]


def _arrays(scored: Sequence[Judged]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return gains `[N, M]` and violations `[N]`."""
    return np.array([one.gains for one in scored]), np.array([one.violation for one in scored])


def _dominates(gains: NDArray[np.float64], violation: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return `[N, N]`: whether the first dominates the second."""
    no_worse = (gains[:, None] >= gains[None]).all(axis=-1)
    better = no_worse & ~no_worse.T
    first, second = violation[:, None], violation[None]
    return np.asarray((first < second) | ((first == second) & better))


def _fronts(gains: NDArray[np.float64], violation: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return `[N]`: the number of the front of every point, 0 for those that none dominates."""
    dominates = _dominates(gains, violation)
    fronts = np.full(len(gains), -1)
    number = 0
    while (fronts < 0).any():
        left = fronts < 0
        fronts[left & ~dominates[left].any(axis=0)] = number
        number += 1
    return fronts


def _crowding(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `[N]`: the crowding distances within one front, infinite at its ends."""
    distance = np.zeros(len(gains))
    for values in gains.T:
        order = np.argsort(values, kind="stable")
        width = values[order[-1]] - values[order[0]]
        distance[order[[0, -1]]] = math.inf
        if width > 0:
            distance[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / width
    return distance
