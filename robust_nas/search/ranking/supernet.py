"""Rank by a single-path supernet that was trained adversarially, in a sum with the zero-cost parts.

    score_super(a) = - mean over batches b of loss(a, b)                                   `paths.py`
    reliability    = 2 rho / (1 + rho),  rho = Spearman of the scores by even and by odd batches   (Spearman-Brown)
    agreement      = Spearman of score_super and of zero-cost, over the candidates
    fit            = reliability >= least_reliability  and  adversarial training accuracy above chance
                     and  agreement above chance
    score(a)       = zero-cost(a) + (rank by score_super where it is fit, else 0),   zero-cost the sum of three ranks

A supernet that was trained too little lowers a rank sum, and alone it ranks below params (by a prototype). One that
orders the candidates otherwise than zero-cost, or backwards, lowers it too, however reliably it does so
(docs/how-to/ranking.md). Above chance means by more than three standard errors of the images counted; for the
agreement, beyond what two orders without a relation reach in 5 % of all cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from robust_nas.config import Fraction01, tree_hash
from robust_nas.search.ranking.method import Columns, RankingContext, RankingMethod
from robust_nas.search.ranking.paths import PathTraining, TrainedPaths
from robust_nas.search.ranking.rank_sum import spearman
from robust_nas.search.ranking.ranks import rank_shares
from robust_nas.search.ranking.zero_cost import ZeroCost
from robust_nas.spaces import CellArchitecture

ONE_SIDED = 1.645  # standard errors, 1 / sqrt(n - 1) of Spearman's correlation without a relation: 5 %


class Gate(NamedTuple):
    """Whether a supernet's scores are fit for a sum, and why."""

    fit: bool
    reliability: float
    accuracy: float  # on adversarial training images, 0..1
    agreement: float  # with zero-cost, -1..1
    words: str


class GatedPaths(PathTraining):
    """A supernet's losses of candidates, and whether they are fit for a sum."""

    # reliability of the losses below which they have no weight
    least_reliability: Annotated[Fraction01, Field(gt=0)] = 0.5

    def gate(
        self, losses: Sequence[Sequence[float]], prior: Sequence[float], accuracy: float, classes: int
    ) -> Gate:
        """Return the verdict for n candidates: their losses `[n][batches]` and zero-cost scores, and the accuracy."""
        halves = [[-sum(own[start::2]) for own in losses] for start in (0, 1)]
        rho = spearman(*halves)
        reliability = 2 * rho / (1 + rho) if rho > 0 else 0.0
        counted = self.batch_size * max(1, self.steps // 10)
        chance = 1 / classes
        bound = chance + 3 * math.sqrt(chance * (1 - chance) / counted)
        agreement = spearman(prior, [-sum(own) for own in losses])
        agreed = ONE_SIDED / math.sqrt(max(len(losses) - 1, 1))
        fit = reliability >= self.least_reliability and accuracy > bound and agreement > agreed
        numbers = (
            f"split-half reliability {reliability:.2f} ({self.least_reliability:g} is needed), "
            f"adversarial training accuracy {100 * accuracy:.1f} % (above {100 * bound:.1f} % is needed), "
            f"agreement with zero-cost {agreement:.2f} (above {agreed:.2f} is needed)"
        )
        return Gate(fit, reliability, accuracy, agreement, f"{'fit' if fit else 'NOT FIT'}: {numbers}")

    def logged_losses(
        self, trained: TrainedPaths, candidates: Sequence[CellArchitecture], context: RankingContext
    ) -> list[list[float]]:
        """Return the losses of every candidate by held-out batch; a log keeps them."""
        log = context.log("supernet")
        known = {key: record["losses"] for key, record in log.records.items()}
        losses = []
        for number, candidate in enumerate(candidates, start=1):
            key = tree_hash(self.sized(candidate).nameless())
            if key not in known:
                known[key] = trained.losses(candidate)
                log.append(key, {"losses": known[key]})
            losses.append(known[key])
            context.progress("score", number, len(candidates))
        return losses


class SupernetRanking(GatedPaths, RankingMethod):
    """One set of weights for all candidates, gated, summed in ranks with zero-cost."""

    name: Literal["supernet"] = "supernet"
    zero_cost: ZeroCost = ZeroCost()  # zero-cost term of the sum

    def score(self, candidates: Sequence[CellArchitecture], context: RankingContext) -> Columns:
        """Return the sum of ranks, the adversarial loss, its weight in the sum (0 or 1), and the zero-cost score."""
        context.known_space("supernet")  # refused before anything is measured
        prior = np.array(self.zero_cost.score(candidates, context)["score"], dtype=np.float64)
        losses, gate = self.supernet_losses(candidates, prior.tolist(), context)
        means = [sum(own) / len(own) for own in losses]
        total = prior + gate.fit * rank_shares([-mean for mean in means])
        return {
            "score": total.tolist(),
            "loss": means,
            "weight": [float(gate.fit)] * len(candidates),
            "zero-cost": prior.tolist(),
        }

    def supernet_losses(
        self, candidates: Sequence[CellArchitecture], prior: Sequence[float], context: RankingContext
    ) -> tuple[list[list[float]], Gate]:
        """Return the losses of every candidate by held-out batch, and the verdict on them.

        `prior` are the zero-cost scores of the candidates. Raises `DivergenceError`.
        """
        trained = TrainedPaths(self, context.known_space("supernet"), context)
        losses = self.logged_losses(trained, candidates, context)
        gate = self.gate(losses, prior, trained.accuracy, context.classes)
        context.progress("score", len(candidates), len(candidates), gate.words)
        return losses, gate
