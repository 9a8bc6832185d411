"""Searches that differ by their seed find the same cells more often than searches that share nothing.

    edges     share of the result's edges (kind, node, operation, source) that a pair of seeds has in common
    choices   share of all edges of the space on which a pair's best operation is the same, kept or not
    shares    overlap of the shares of operations in a kind of cell, sum over operations of the smaller share

Each is the mean over all pairs, next to the same number of draws from the space (`chance.py`). The edges decide: edges
may disagree where shares of operations agree, which is a preference, but no architecture.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from robust_nas.search.verdict.chance import Agreement, Chance, agreement, agreement_by_chance
from robust_nas.search.verdict.check import SearchCheck, SearchFinding
from robust_nas.search.verdict.derivation import Cells, cells_of, derive
from robust_nas.search.verdict.evidence import SearchEvidence
from robust_nas.search.verdict.trajectory import trajectory

ONE_SEED = "search again with --seeds 2: one search cannot show whether another finds the same"
LONGER = (
    "search longer (search.epochs) or on more images (data.limit) until seeds agree; a larger learning rate of the "
    "alphas makes cells crisp, not right"
)


class SeedAgreement(SearchCheck):
    """The share of edges that pairs of seeds have in common, against chance in the space."""

    title: ClassVar[str] = "agreement between seeds"
    required_of: ClassVar[tuple[str, ...]] = ("one-shot",)  # different samples can be equally good
    name: Literal["seed-agreement"] = "seed-agreement"

    def run(self, evidence: SearchEvidence) -> SearchFinding:
        """Return PASS where the share is above chance, NOT RUN for one seed."""
        space, count = evidence.space, len(evidence.seeds)
        if count < 2:
            return self.finding(evidence, "NOT RUN", "there is one seed", next_step=ONE_SEED)
        observed = _agreement(evidence)
        draws = agreement_by_chance(space, count)
        found = {
            key: Chance.of(float(getattr(observed, key)), getattr(draws, key)) for key in Agreement._fields
        }
        if np.isnan(observed.choices):
            del found["choices"]
        edges, value = found["edges"], float(observed.edges)
        text = f"{count} seeds share {value:.0%} of their edges ({edges.words()})"
        status: Literal["PASS", "WARN"] = "PASS" if edges.exceeded else "WARN"
        if status == "WARN" and found["shares"].exceeded:
            text += f"; their shares of operations agree to {float(observed.shares):.0%} ({found['shares'].words()})"
        details = {
            key: {"value": float(getattr(observed, key)), **chance._asdict()} for key, chance in found.items()
        }
        return self.finding(
            evidence,
            status,
            text,
            value,
            allowed=f"above {edges.bound:.2f}",
            next_step="" if status == "PASS" else LONGER,
            details=details,
        )


def _agreement(evidence: SearchEvidence) -> Agreement:
    """Return the agreement of the architectures; that of all edges is NaN where a search has no edge weights."""
    space = evidence.space
    cells = _stack([cells_of(one.architecture, space) for one in evidence.seeds])
    observed = agreement(cells, space)
    ways = [trajectory(one.records, space) for one in evidence.seeds]
    known: list[Any] = [way.weights[-1] for way in ways if way is not None]
    choices = (
        agreement(derive(np.stack(known), space), space).choices
        if len(known) == len(ways)
        else np.float64("nan")
    )
    return observed._replace(choices=np.asarray(choices))


def _stack(cells: list[Cells]) -> Cells:
    return Cells(np.stack([one.operations for one in cells]), np.stack([one.kept for one in cells]))
