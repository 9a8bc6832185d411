"""What was measured of the supernet at the end of a search: the key "fitness" of `result.json`, read with care."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_nas.search.verdict.evidence import SearchEvidence, SeedEvidence

AGAIN = "search again: searches of earlier versions, and foreign supernets, hold no such measurement"


def fitness_of(one: SeedEvidence) -> Mapping[str, Any] | None:
    """Return what was measured, None where nothing was."""
    found: Mapping[str, Any] | None = one.result.get("fitness")
    return found


def known(evidence: SearchEvidence) -> list[tuple[SeedEvidence, Mapping[str, Any]]]:
    """Return the searches whose supernet was measured, the result's first."""
    ordered = sorted(evidence.seeds, key=lambda one: one is not evidence.chosen)
    return [(one, found) for one in ordered if (found := fitness_of(one)) is not None]
