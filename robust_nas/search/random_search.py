"""Random search within a window of MACs and parameters: the control that every search needs.

Candidates are drawn uniformly among the genotypes whose networks fit the windows; a network that was evaluated is drawn
again. The best one is the result (Li and Talwalkar, 2019, show how hard that is to beat).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from robust_nas.search.sampled.history import Proposal, SampledSearch
from robust_nas.search.sampled.strategy import SampledStrategy


class RandomSearch(SampledStrategy):
    """Random architectures, each evaluated alike."""

    name: Literal["random"] = "random"

    def ask(self, search: SampledSearch) -> Sequence[Proposal]:
        """Return a batch of draws."""
        return search.random_batch()
