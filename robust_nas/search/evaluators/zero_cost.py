"""Score a candidate by zero-cost: the sum of its ranks by several proxies (`search/ranking/zero_cost.py`).

A rank needs a group, and a search scores one candidate at a time. So the ranks are those within a reference sample:
`reference` random architectures of the space, drawn by the seed and measured once, before the first candidate. Scores
of one search compare with each other; those of searches with other seeds or images do not.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from robust_nas.config import Count
from robust_nas.search.evaluators.evaluator import Evaluator, Scored
from robust_nas.search.ranking.zero_cost import Values, ZeroCost, spread
from robust_nas.search.strategy import SearchContext
from robust_nas.spaces import CellArchitecture, CellSpace, sample

if TYPE_CHECKING:
    from robust_nas.data import Images


Fixed = tuple["Images", int, tuple[float, ...], tuple[float, ...], int]  # images, classes, mean, std, seed


class ZeroCostScore(Evaluator):
    """The rank sum of a candidate within a reference sample of its space: 0..1 for each proxy; nothing is trained."""

    columns: ClassVar[tuple[str, ...]] = ("spread",)

    name: Literal["zero-cost"] = "zero-cost"
    method: ZeroCost = ZeroCost()  # proxies, and how they are computed
    reference: Annotated[Count, Field(ge=10)] = 100  # random architectures that ranks refer to

    def evaluate(self, candidate: CellArchitecture, context: SearchContext) -> Scored:
        """Return the mean rank sum over the draws, and the spread."""
        method, images = self.method, context.images
        fixed = (images, context.classes, context.mean, context.std, context.seed)
        found = _measured(method, (method.sized(candidate),), fixed)
        ranked = method.ranked(found, _reference(self, context.space, fixed))
        return Scored(float(ranked[:, 0].mean()), {"spread": spread(ranked)[0]})

    def of_reference(self, context: SearchContext) -> tuple[float, ...]:
        """Return the scores of the reference architectures themselves, in the order in which they were drawn."""
        fixed = (context.images, context.classes, context.mean, context.std, context.seed)
        return tuple(self.method.ranked(_reference(self, context.space, fixed)).mean(0).tolist())


def _measured(method: ZeroCost, small: tuple[CellArchitecture, ...], fixed: Fixed) -> list[Values]:
    images, classes, mean, std, seed = fixed
    batches = method.batches(images, seed)
    return [method.measure(each, batches, classes, mean, std, seed) for each in small]


@lru_cache(maxsize=2)  # of a search, and of the one before
def _reference(evaluator: ZeroCostScore, space: CellSpace, fixed: Fixed) -> tuple[Values, ...]:
    """Return the values of the reference sample; the images are known by their identity."""
    seeds = np.random.default_rng([fixed[-1], 1]).integers(2**32, size=evaluator.reference)
    drawn = tuple(evaluator.method.sized(sample(space, int(seed))) for seed in seeds)
    return tuple(_measured(evaluator.method, drawn, fixed))
