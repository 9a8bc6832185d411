"""Score a candidate by a supernet that the search trains once, in a sum with zero-cost (`ranking/supernet.py`).

    score(a) = zero-cost(a) + (share of the reference sample with a higher adversarial loss, where the gate is fit)

A sum of ranks needs a group: it is a reference sample of the space, drawn by the seed, which decides the gate too.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from robust_nas.config import Count
from robust_nas.search.evaluators.evaluator import Evaluator, Scored
from robust_nas.search.evaluators.train import ranking_context
from robust_nas.search.ranking.paths import TrainedPaths
from robust_nas.search.ranking.rank_sum import share_below
from robust_nas.search.ranking.supernet import GatedPaths
from robust_nas.search.strategy import SearchContext
from robust_nas.spaces import CellArchitecture, sample


class InheritedWeights(GatedPaths, Evaluator):
    """A path of one supernet for every candidate; `weight` is 0 where the supernet is not fit for the sum."""

    columns: ClassVar[tuple[str, ...]] = ("loss", "weight")

    name: Literal["supernet"] = "supernet"
    reference: Count = 64  # architectures of the sample

    def evaluate(self, candidate: CellArchitecture, context: SearchContext) -> Scored:
        """Return the sum at the size of this evaluator, which is not that of the search."""
        from robust_nas.search.evaluators import EVALUATORS

        own = ranking_context(context)
        trained = TrainedPaths(self, context.space, own)
        sampled = [
            sample(context.space, context.seed * 1_000_003 + number) for number in range(self.reference)
        ]
        losses = self.logged_losses(trained, [*sampled, candidate], own)
        gate = self.gate(losses[:-1], trained.accuracy, context.classes)
        *reference, loss = [sum(each) / len(each) for each in losses]
        share = share_below(-loss, [-each for each in reference])
        prior = EVALUATORS.make("zero-cost").evaluate(candidate, context)
        score = None if prior.score is None else prior.score + gate.fit * share
        return Scored(score, {"loss": loss, "weight": float(gate.fit)})
