"""What a sampled strategy sees of its search: the candidates so far, its own state, seeded draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from robust_nas.search.strategy import SearchContext
from robust_nas.search.window import Window
from robust_nas.spaces import CellArchitecture, sample


class Candidate(NamedTuple):
    """An architecture that was evaluated, at the final size; a score of None: it could not be scored."""

    architecture: CellArchitecture
    macs: int
    params: int
    score: float | None


@dataclass
class SampledSearch:
    """The state of one search; `state` is the strategy's own: tensors, numbers, strings, lists, dicts."""

    context: SearchContext
    macs: Window | None  # that random architectures are drawn from
    params: Window | None
    candidates: list[Candidate] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)

    def generator(self, number: int) -> np.random.Generator:
        """Return the generator of draws for candidate `number`: by the seed and the number alone."""
        return np.random.default_rng([self.context.seed, number])

    def random(self, number: int) -> CellArchitecture:
        """Return a random architecture in the window of MACs and parameters, for candidate `number`.

        Raises `SearchSpaceError` where no draw of many is in the window.
        """
        context = self.context
        return sample(
            context.space,
            int(self.generator(number).integers(2**32)),
            macs=self.macs,
            params=self.params,
            size=context.network,
            input_shape=context.input_shape,
            classes=context.classes,
        )
