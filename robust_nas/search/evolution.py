"""Regularised evolution (Real, Aggarwal, Huang and Le, AAAI 2019): a population in which the oldest dies.

    the first P candidates are random
    then: S of the population by chance, the best of these is changed in one choice, the child joins, the oldest leaves

The sample of a tournament has no member twice (our choice; the paper draws with replacement), and a batch of children
is made before any of them joins. A child that has a record joins with it and costs no evaluation; after many batches of
nothing else, random networks join (our choice). A child outside the windows is drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from robust_nas.config import Count
from robust_nas.search.sampled.history import Candidate, Proposal, SampledSearch
from robust_nas.search.sampled.strategy import SampledStrategy
from robust_nas.spaces.encoding import Code

MAX_DRAWS = 100  # mutations of a parent before a random network takes the place of its child


class Evolution(SampledStrategy):
    """Tournaments, one mutation, ageing."""

    name: Literal["evolution"] = "evolution"
    population: Count = 20  # P, candidates alive
    tournament: Count = 5  # S, candidates of a tournament; at most the population

    def ask(self, search: SampledSearch) -> Sequence[Proposal]:
        """Return random networks until the population is full, then children."""
        population = search.state.get("population", [])
        missing = self.population - len(population)
        if missing > 0 or search.stale:
            return search.random_batch(most=missing if missing > 0 else None)
        children = (self._child(search, population, number) for number in search.numbers())
        return [Proposal(child) for child in children if child is not None]

    def tell(self, search: SampledSearch, candidates: Sequence[Candidate]) -> None:
        """Let what has gains join, and the oldest leave."""
        joined = [one for one in candidates if one.gains is not None]
        search.state["population"] = [*search.state.get("population", []), *joined][-self.population :]

    def _child(self, search: SampledSearch, population: list[Candidate], number: int) -> Code | None:
        draws = search.generator(number)
        size = min(self.tournament, len(population))
        chosen = draws.choice(len(population), size=size, replace=False)
        parent = search.goal.ordered([population[i] for i in chosen])[0]
        for _ in range(MAX_DRAWS):
            child = search.encoding.mutate(parent.code, draws)
            if search.accepts(child):
                return child
        return search.random(number)
