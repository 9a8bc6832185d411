"""Random search within a window of MACs: the control that every search needs.

Candidates are drawn uniformly among the genotypes whose networks fit the window, with replacement, and the one with the
best score is the result (Li and Talwalkar, 2019, show how hard that is to beat).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from robust_nas.search.sampled.history import SampledSearch
from robust_nas.search.sampled.strategy import SampledStrategy
from robust_nas.spaces import CellArchitecture


class RandomSearch(SampledStrategy):
    """Random architectures, each evaluated alike."""

    name: Literal["random"] = "random"

    def ask(self, search: SampledSearch) -> Sequence[CellArchitecture]:
        """Return one more draw."""
        return [search.random(len(search.candidates))]
