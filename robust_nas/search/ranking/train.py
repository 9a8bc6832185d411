"""Rank by short adversarial trainings, of the candidates that the zero-cost score puts first.

    S_0        = the k best by zero-cost, k = as many as the budget trains
    score_r(a) = minus the mean training loss of the last half of T_r steps (`standalone.py`),     a in S_r
    S_r+1      = the ceil(keep |S_r|) best of S_r by score_r           successive halving (Jamieson and Talwalkar, 2016)
    score(a)   = zero-cost(a) + rank by training,          zero-cost itself the sum of three ranks

Every rung trains from the start, with a schedule of its own length: the learning rate has fallen when a loss counts.
The rank by training orders by the number of steps, then by the score of that rung; candidates that were not trained
share its lowest place. Rank sums and numbers of steps are from measurements with a prototype.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from robust_nas.config import Count, Fraction01, tree_hash
from robust_nas.errors import ConfigError, DivergenceError
from robust_nas.search.ranking.method import Columns, RankingContext, RankingMethod
from robust_nas.search.ranking.ranks import rank_shares
from robust_nas.search.ranking.standalone import StandaloneTraining, Steps
from robust_nas.search.ranking.zero_cost import ZeroCost
from robust_nas.spaces import CellArchitecture


class TrainRanking(StandaloneTraining, RankingMethod):
    """Short trainings on common batches with successive halving, summed in ranks with zero-cost."""

    name: Literal["train"] = "train"
    rungs: Annotated[tuple[Steps, ...], Field(min_length=1)] = (200, 400, 800)  # steps, ascending
    keep: Annotated[Fraction01, Field(gt=0, lt=1)] = 0.5  # share of a rung that goes on to the next one
    budget: Count | None = None  # steps of all trainings together; None: every candidate is trained
    zero_cost: ZeroCost = ZeroCost()  # which chooses what is trained, and is in the sum

    @model_validator(mode="after")
    def _rungs_ascend(self) -> Self:
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(f"rungs: got {list(self.rungs)}; ascending numbers of steps are needed")
        return self

    def plan(self, candidates: int) -> list[int]:
        """Return how many of so many candidates each rung trains: the most that the budget pays.

        Raises `ConfigError` for a budget that does not pay one candidate.
        """
        for first in range(candidates, 0, -1):
            sizes = [first]
            while len(sizes) < len(self.rungs):
                sizes.append(math.ceil(self.keep * sizes[-1]))
            steps = sum(size * rung for size, rung in zip(sizes, self.rungs, strict=True))
            if self.budget is None or steps <= self.budget:
                return sizes
        raise ConfigError(
            f"method train: budget: got {self.budget} steps; one candidate takes {sum(self.rungs)}"
        )

    def score(self, candidates: Sequence[CellArchitecture], context: RankingContext) -> Columns:
        """Return the sum of ranks, the loss and the steps of a candidate's last rung, and its zero-cost score.

        A candidate whose training diverges has no score. Raises `DivergenceError` where none has one.
        """
        sizes = self.plan(len(candidates))
        prior = np.array(self.zero_cost.score(candidates, context)["score"], dtype=np.float64)
        first = np.argsort(-prior, kind="stable")[: sizes[0]].tolist()
        reached = self.halving(first, sizes, candidates, context)
        if not reached:
            raise DivergenceError(
                f"method train: all of {len(first)} trainings diverged; a smaller learning_rate may help"
            )
        order = {index: float(place) for place, index in enumerate(sorted(reached, key=reached.__getitem__))}
        numbers = range(len(candidates))
        total = prior + rank_shares([order.get(index) for index in numbers])
        diverged = set(first) - reached.keys()
        return {
            "score": [None if index in diverged else float(total[index]) for index in numbers],
            "loss": [-reached[index][1] if index in reached else None for index in numbers],
            "steps": [float(reached[index][0]) if index in reached else None for index in numbers],
            "zero-cost": prior.tolist(),
        }

    def halving(
        self,
        alive: Sequence[int],
        sizes: Sequence[int],
        candidates: Sequence[CellArchitecture],
        context: RankingContext,
    ) -> dict[int, tuple[int, float]]:
        """Return the steps and the score of the last rung of each candidate, by number; none for a diverged one."""
        trainings = _Trainings(self, candidates, context)
        reached: dict[int, tuple[int, float]] = {}
        done = 0
        for size, rung in zip(sizes, self.rungs, strict=True):
            kept = alive[:size]
            for index in kept:
                score = trainings.score(index, rung)
                reached.pop(index, None)
                if score is not None:
                    reached[index] = rung, score
                done += 1
                context.progress("train", done, sum(sizes), f"{rung} steps")
            alive = sorted(
                (index for index in kept if index in reached), key=lambda index: -reached[index][1]
            )
        return reached


class _Trainings:
    """The scores of single trainings, kept in the ranking's log: equal genotypes are trained once a rung."""

    def __init__(
        self, options: TrainRanking, candidates: Sequence[CellArchitecture], context: RankingContext
    ) -> None:
        self.options, self.candidates, self.context = options, candidates, context
        self.log = context.log("train")
        self.known = dict(self.log.records)
        self.batches = options.batches(context.reduced(options.side), context)

    def score(self, index: int, steps: int) -> float | None:
        """Return the score of a candidate after so many steps; None where its training diverges."""
        candidate = self.candidates[index]
        key = f"{tree_hash(self.options.sized(candidate).nameless())}:{steps}"
        if key not in self.known:
            score = self.options.training_score(candidate, steps, self.batches, self.context)
            self.known[key] = {"score": score}
            self.log.append(key, self.known[key])
        value: float | None = self.known[key]["score"]
        return value
