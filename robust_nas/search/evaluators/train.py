"""Score a candidate by a short training on batches that are common to all candidates (`ranking/standalone.py`)."""

from __future__ import annotations

from typing import ClassVar, Literal

from robust_nas.search.evaluators.evaluator import Evaluator, Scored
from robust_nas.search.ranking.method import RankingContext
from robust_nas.search.ranking.standalone import LEAST_STEPS, StandaloneTraining, Steps
from robust_nas.search.strategy import SearchContext
from robust_nas.spaces import CellArchitecture


class CommonTraining(StandaloneTraining, Evaluator):
    """Minus the mean adversarial training loss of the last half of `steps`; a training that diverges has no score."""

    columns: ClassVar[tuple[str, ...]] = ("loss",)
    rung_key: ClassVar[str | None] = "steps"
    least_rung: ClassVar[int] = LEAST_STEPS

    name: Literal["train"] = "train"
    steps: Steps = 400  # training steps of a candidate

    def evaluate(self, candidate: CellArchitecture, context: SearchContext) -> Scored:
        """Return the score at the size of this evaluator, which is not that of the search."""
        own = ranking_context(context)
        batches = self.batches(own.reduced(self.side), own)
        score = self.training_score(candidate, self.steps, batches, own)
        return Scored(score, {} if score is None else {"loss": -score})


def ranking_context(context: SearchContext) -> RankingContext:
    """Return what a ranking needs of the context of a search."""
    return RankingContext(
        run=context.run,
        images=context.images,
        classes=context.classes,
        mean=context.mean,
        std=context.std,
        seed=context.seed,
        space=context.space,
        augmentation=context.augmentation,
        checkpoint_seconds=context.checkpoint_seconds,
        progress=context.progress,
    )
