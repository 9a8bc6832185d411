"""The two loops, and which of them runs a strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robust_nas.search.one_shot import loop as one_shot
from robust_nas.search.sampled import loop as sampled
from robust_nas.search.strategy import SearchContext, SearchOutcome, Strategy

LOOPS: dict[str, Callable[[Any, SearchContext], SearchOutcome]] = {
    "one-shot": one_shot.search,
    "sampled": sampled.search,
}


def run_strategy(strategy: Strategy, context: SearchContext) -> SearchOutcome:
    """Return what a strategy finds, by the loop of its kind. Continues from the run's checkpoint where there is one."""
    return LOOPS[strategy.kind](strategy, context)
