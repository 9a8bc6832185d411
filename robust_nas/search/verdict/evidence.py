"""What a verdict on a search is made of: plain values, so that it needs neither a run folder nor torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robust_nas.search.strategy import Record, Strategy
from robust_nas.spaces import CellArchitecture, CellSpace


@dataclass(frozen=True, kw_only=True)
class SeedEvidence:
    """One search: what it found and recorded."""

    seed: int
    architecture: CellArchitecture
    records: Sequence[Record]  # lines of `metrics.jsonl`; the last one of an epoch has the edge weights
    result: Mapping[str, Any]  # `result.json`; its key "fitness" may be missing


@dataclass(frozen=True, kw_only=True)
class SearchEvidence:
    """The searches of one config that differ by their seed, and the comparison of their result with controls."""

    strategy: Strategy
    space: CellSpace
    classes: int
    seeds: Sequence[SeedEvidence]
    controls: Mapping[str, Any] | None = None  # content of `controls.json`
    add_controls: str = ""  # the command that trains controls

    @property
    def chosen(self) -> SeedEvidence:
        """Return the search whose architecture is the result: the best by the strategy's criterion."""
        if len(self.seeds) == 1:
            return self.seeds[0]
        return self.seeds[self.strategy.criterion.best([one.result for one in self.seeds])]
