"""The cells do not change any more: those of the last quarter's start are the final ones, but for few edges.

    share of the final cells' edges that the weights before the last quarter of the epochs derive as well

A walk without a drift keeps some edges too, because it does not go far in a quarter of its epochs; the share is above
chance where it exceeds that of such walks (`chance.kept_by_chance`) with the search's own step sizes and its
optimiser's momentum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from robust_nas.search.verdict.chance import Chance, Floats, kept_by_chance, neighbours
from robust_nas.search.verdict.check import SearchCheck, SearchFinding
from robust_nas.search.verdict.derivation import derive, shared
from robust_nas.search.verdict.evidence import SearchEvidence
from robust_nas.search.verdict.thresholds import LAST_PART
from robust_nas.search.verdict.trajectory import Trajectory, momentum_of, trajectory
from robust_nas.spaces import CellSpace

LONGER = "search longer (search.epochs): the cells still change at the end"


class LastEpochs(SearchCheck):
    """The share of the final edges that were there before the last quarter, against walks without a drift."""

    title: ClassVar[str] = "agreement of the last epochs"
    kinds: ClassVar[tuple[str, ...]] = ("one-shot",)
    name: Literal["last-epochs"] = "last-epochs"

    def run(self, evidence: SearchEvidence) -> SearchFinding:
        """Return PASS where the share, the mean over seeds, is above that of walks."""
        ways = [trajectory(one.records, evidence.space) for one in evidence.seeds]
        known = [way for way in ways if way is not None and len(way.weights) > 1]
        if not known or len(known) < len(ways):
            text = "the records hold no edge weights of two epochs or more"
            return self.finding(evidence, "NOT RUN", text, next_step="search again for more epochs")
        value, chance = kept_until_the_end(known, evidence.space, momentum_of(evidence))
        text = f"{value:.0%} of the edges are those of the last quarter's start (a walk keeps {chance.mean:.0%}, "
        text += f"at most {chance.bound:.0%})"
        return self.finding(
            evidence,
            "PASS" if chance.exceeded else "WARN",
            text,
            value,
            allowed=f"above {chance.bound:.2f}",
            next_step="" if chance.exceeded else LONGER,
            details=chance._asdict(),
        )


def kept_until_the_end(ways: Sequence[Trajectory], space: CellSpace, momentum: float) -> tuple[float, Chance]:
    """Return the share of final edges that were there before the last part, and what walks give; means over seeds."""
    found = [_kept(way, space, momentum, number) for number, way in enumerate(ways)]
    value = float(np.mean([share for share, _ in found]))
    return value, Chance.of(value, np.mean([draws for _, draws in found], axis=0))


def _kept(way: Trajectory, space: CellSpace, momentum: float, seed: int) -> tuple[float, Floats]:
    """Return the share of one search, and that of walks `[R]`."""
    epochs = len(way.weights)
    last = max(1, round(LAST_PART * epochs))
    share = shared(derive(way.weights[-1], space), derive(way.weights[-1 - last], space))
    sizes = np.sqrt((way.increments**2).mean((2, 3)))  # [epochs, C]
    return float(share), kept_by_chance(sizes, last, neighbours(momentum, way.steps), space, seed)
