"""NNI's `RegularizedEvolution` (after Real, Aggarwal, Huang and Le, AAAI 2019), with NNI's rules.

    the first P models are random
    then: the best of S of the population is changed, the child joins when it has a metric, the oldest leaves
    a change draws every choice again with probability `mutation`, the old value among the new ones; or, with
    `crossover`, takes every choice from one of two parents first

A model that was submitted before is changed again, 500 times at most. `evolution` is our own: it changes one choice,
and draws again what lies outside the windows.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from robust_nas.config import Count, Fraction01
from robust_nas.integrations.nni_sampled import NNISampled


class NNIEvolution(NNISampled):
    """Regularised evolution by NNI."""

    name: Literal["nni:evolution"] = "nni:evolution"
    population: Count = 20  # P; NNI's own default is 100
    tournament: Count = 5  # S, at most the population; NNI's own default is 25
    mutation: Annotated[Fraction01, Field(gt=0)] = 0.05  # probability of each choice
    crossover: bool = False  # whether candidates are also crossed

    def theirs(self, seed: int) -> Any:
        """Return NNI's strategy."""
        from robust_nas.integrations.nni_proposals import RegularizedEvolution

        return RegularizedEvolution(
            population_size=self.population,
            sample_size=min(self.tournament, self.population),
            mutation_prob=self.mutation,
            crossover=self.crossover,
            seed=seed,
        )
