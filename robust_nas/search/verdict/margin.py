"""The best operation of an edge leads the next one by more than a walk without a drift would.

    z_e = (x_first - x_second) / sigma_e,     sigma_e^2 = mean over operations of sum_b d_(b,e,o)^2

of the final centred logits x of edge e and its increments d_b (`trajectory.py`). The mean of z over all edges and seeds
is compared with its distribution where every block's increments get a random sign (`chance.py`). That keeps what edges
and operations have in common, and blocks of different sizes; a walk of equal independent steps is a special case. sigma
does not depend on the signs. Adam's momentum makes neighbouring blocks alike, which inflates z by a known factor: the
observed mean is divided by it.

All edges take part, kept or not: choosing the strongest ones first would choose large z of noise too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from robust_nas.search.verdict.chance import (
    Chance,
    Floats,
    margins,
    margins_by_chance,
    momentum_factor,
)
from robust_nas.search.verdict.check import SearchCheck, SearchFinding
from robust_nas.search.verdict.derivation import allowed, cells_of, derive, shared
from robust_nas.search.verdict.evidence import SearchEvidence
from robust_nas.search.verdict.thresholds import LEAST_BLOCKS, LEAST_PATTERNS
from robust_nas.search.verdict.trajectory import Trajectory, momentum_of, trajectory

LONGER = "search longer (search.epochs), or let the alphas move earlier: their order is that of noise"


class Margin(SearchCheck):
    """The mean lead of the best operations over the next ones, in units of noise, against random signs."""

    title: ClassVar[str] = "margin over the next operation"
    kinds: ClassVar[tuple[str, ...]] = ("one-shot",)
    required_of: ClassVar[tuple[str, ...]] = ("one-shot",)
    name: Literal["margin"] = "margin"

    def applies(self, evidence: SearchEvidence) -> bool:
        """Return whether an edge has a choice."""
        return int(allowed(evidence.space).sum()) > 1

    def run(self, evidence: SearchEvidence) -> SearchFinding:
        """Return PASS where the mean margin is above chance, NOT RUN for trajectories that are too short."""
        ways = [trajectory(one.records, evidence.space) for one in evidence.seeds]
        known = [way for way in ways if way is not None]
        if not known or len(known) < len(ways):
            text = "the records hold no edge weights, which searches of earlier versions did not write"
            return self.finding(evidence, "NOT RUN", text, next_step="search again")
        counts = [len(way.blocks[0]) for way in known]
        if min(counts) < LEAST_BLOCKS or 2.0 ** sum(counts) < LEAST_PATTERNS:
            text = f"the alphas moved in {min(counts)} epochs, too few to tell a drift from noise"
            least = f"at least {LEAST_BLOCKS} epochs, {LEAST_BLOCKS + 1} with one seed"
            return self.finding(evidence, "NOT RUN", text, next_step=f"let the alphas move for {least}")
        value, chance = mean_margin(known, allowed(evidence.space), momentum_of(evidence))
        text = f"on average the best operation leads by {value:.2f} of its noise ({chance.words('{:.2f}')})"
        text += self._other_rule(evidence, known)
        return self.finding(
            evidence,
            "PASS" if chance.exceeded else "WARN",
            text,
            value,
            allowed=f"above {chance.bound:.2f}",
            next_step="" if chance.exceeded else LONGER,
            details=chance._asdict(),
        )

    def _other_rule(self, evidence: SearchEvidence, ways: list[Trajectory]) -> str:
        """Return words for architectures that were derived by another rule than the largest weights."""
        same = [
            shared(cells_of(one.architecture, evidence.space), derive(way.weights[-1], evidence.space))
            for one, way in zip(evidence.seeds, ways, strict=True)
        ]
        share = float(np.mean(same))
        return "" if share == 1 else f"; {share:.0%} of the edges found are those of the largest weights"


def mean_margin(
    ways: Sequence[Trajectory], choosable: NDArray[np.bool_], momentum: float
) -> tuple[float, Chance]:
    """Return the mean margin over edges and seeds, and what random signs give."""
    observed, draws = list[float](), list[Floats]()
    for number, way in enumerate(ways):
        blocks, steps = way.blocks
        factor = momentum_factor(momentum, steps, len(blocks))
        observed.append(float(margins(blocks.sum(0), blocks, choosable).mean()) / factor)
        draws.append(margins_by_chance(blocks, choosable, number).mean((1, 2)))
    value = float(np.mean(observed))
    return value, Chance.of(value, np.mean(draws, axis=0))


def edge_table(evidence: SearchEvidence) -> list[dict[str, Any]]:
    """Return weight, noise and margin of every edge of the result; empty where they were not recorded.

    `noise` is the standard deviation of the weight w by the increments' own, without their mean: w (1 - w) s, with
    s^2 = B times their variance. `margin` is z above, and `decided` whether noise alone has it on 5 % of the edges.
    """
    space, one = evidence.space, evidence.chosen
    way = trajectory(one.records, space)
    choosable = allowed(space)
    if way is None or choosable.sum() < 2 or len(way.blocks[0]) < LEAST_BLOCKS:
        return []
    blocks, steps = way.blocks
    factor = momentum_factor(momentum_of(evidence), steps, len(blocks))
    lead = margins(blocks.sum(0), blocks, choosable) / factor
    bound = Chance.of(0.0, margins_by_chance(blocks, choosable, 0).ravel()).bound
    deviation = np.sqrt(len(blocks) * blocks.var(0, ddof=1).mean(-1))  # [C, E]
    cells, rows = cells_of(one.architecture, space), []
    for kind, edge in np.argwhere(cells.kept).tolist():
        number = int(cells.operations[kind, edge])
        weight = float(way.weights[-1, kind, edge, number])
        rows.append(
            {
                "kind": space.kinds[kind],
                "node": space.edges[edge][0],
                "source": space.edges[edge][1],
                "operation": space.operations[number],
                "weight": round(weight, 6),
                "noise": round(weight * (1 - weight) * float(deviation[kind, edge]), 6),
                "margin": round(float(lead[kind, edge]), 4),
                "decided": bool(lead[kind, edge] > bound),
            }
        )
    return rows
