"""Score a candidate by a supernet that the search trains once, in a sum with zero-cost (`ranking/supernet.py`).

    score(a) = zero-cost(a) + (share of the reference sample with a higher adversarial loss, where the gate is fit)

A sum of ranks needs a group: for both terms it is one reference sample of the space, drawn by the seed, which decides
the gate too.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from robust_nas.config import Count
from robust_nas.search.evaluators.evaluator import Evaluator, Scored
from robust_nas.search.evaluators.train import ranking_context
from robust_nas.search.evaluators.zero_cost import ZeroCostScore
from robust_nas.search.ranking.method import RankingContext
from robust_nas.search.ranking.paths import TrainedPaths
from robust_nas.search.ranking.ranks import shares_within
from robust_nas.search.ranking.supernet import Gate, GatedPaths
from robust_nas.search.ranking.zero_cost import ZeroCost
from robust_nas.search.strategy import SearchContext
from robust_nas.spaces import CellArchitecture, CellSpace, sample


class InheritedWeights(GatedPaths, Evaluator):
    """A path of one supernet for every candidate; `weight` is 0 where the supernet is not fit for the sum."""

    columns: ClassVar[tuple[str, ...]] = ("loss", "weight")
    parallel: ClassVar[bool] = False  # it trains once, in the folder of the search

    name: Literal["supernet"] = "supernet"
    reference: Annotated[Count, Field(ge=10)] = 64  # architectures of the sample, for both terms
    zero_cost: ZeroCost = ZeroCost()  # the other term
    # passes over the images that train; None: steps and clean_steps. Every operation of every edge sees each image once
    # a pass on average; a third of the passes is clean.
    epochs: Count | None = Field(default=None, exclude_if=lambda epochs: epochs is None)

    def of_epochs(self, space: CellSpace, images: int) -> Self:
        """Return the evaluator whose steps are those of `epochs`, with so many images to train and to score.

        An epoch has K paths a batch, K the number of operations, as a step of a mixture computes K operations an edge.
        """
        if self.epochs is None:
            return self
        batches = max(1, (images - self.score_images) // self.batch_size)
        paths = self.epochs * batches * len(space.operations)
        clean = paths // 3
        return self.model_copy(update={"clean_steps": clean, "steps": paths - clean, "epochs": None})

    def evaluate(self, candidate: CellArchitecture, context: SearchContext) -> Scored:
        """Return the sum at the size of this evaluator, which is not that of the search."""
        if self.epochs is not None:
            return self.of_epochs(context.space, len(context.images)).evaluate(candidate, context)
        own = ranking_context(context)
        zero_cost = ZeroCostScore(method=self.zero_cost, reference=self.reference)
        trained, reference, gate = _prepared(self, context.space, own, zero_cost.of_reference(context))
        (losses,) = self.logged_losses(trained, [candidate], own)
        loss = _mean(losses)
        (share,) = shares_within([-loss], [-each for each in reference]).tolist()
        prior = zero_cost.evaluate(candidate, context)
        score = None if prior.score is None else prior.score + gate.fit * share
        return Scored(score, {"loss": loss, "weight": float(gate.fit)})


@lru_cache(maxsize=1)  # of a search; the weights and the sample's losses are on the disk
def _prepared(
    evaluator: InheritedWeights, space: CellSpace, context: RankingContext, prior: tuple[float, ...]
) -> tuple[TrainedPaths, list[float], Gate]:
    """Return the trained supernet, the reference sample's losses, and whether they are fit; `prior`: its zero-cost."""
    trained = TrainedPaths(evaluator, space, context)
    seeds = np.random.default_rng([context.seed, 1]).integers(2**32, size=evaluator.reference)
    losses = evaluator.logged_losses(trained, [sample(space, int(seed)) for seed in seeds], context)
    gate = evaluator.gate(losses, prior, trained.accuracy, context.classes)
    context.progress("score", len(losses), len(losses), gate.words)
    return trained, [_mean(each) for each in losses], gate


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
