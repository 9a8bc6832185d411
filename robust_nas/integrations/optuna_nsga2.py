"""NSGA-II (Deb, Pratap, Agarwal and Meyarivan, 2002) by Optuna's `NSGAIISampler`: several objectives at a time.

Generations of `population` trials; parents by binary tournaments on front and crowding, uniform crossover, and a
mutation that draws a parameter again. Optuna's rates of crossover and mutation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from robust_nas.config import Integer
from robust_nas.integrations.optuna_strategy import OptunaStrategy

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class NSGA2(OptunaStrategy):
    """Optuna's NSGA-II."""

    name: Literal["nsga2"] = "nsga2"
    population: Annotated[Integer, Field(ge=2)] = 20  # candidates of a generation

    def sampler(self, seed: int) -> BaseSampler:
        """Return the sampler."""
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(population_size=self.population, seed=seed)
