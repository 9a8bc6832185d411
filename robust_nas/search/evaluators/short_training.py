"""Score a candidate by a short training with the run's own recipe.

A part of the search's images is held out; the score is the robust accuracy on it after the last epoch, by the
recipe's validation attack. Every candidate has the same images, seed and number of epochs.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from robust_nas.config import Count, Number
from robust_nas.errors import ConfigError, DivergenceError
from robust_nas.search.evaluators.evaluator import Evaluator, Scored
from robust_nas.search.strategy import SearchContext
from robust_nas.spaces import CellArchitecture


class ShortTraining(Evaluator):
    """Robust validation accuracy (0..1) after a short training; a training that diverges has no score."""

    trains: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ("clean", "robust")
    rung_key: ClassVar[str | None] = "epochs"

    name: Literal["short-training"] = "short-training"
    epochs: Count = 5  # of a candidate's training
    validation: Annotated[Number, Field(gt=0, lt=1)] = (
        0.2  # share of the search's images that score candidates
    )

    def evaluate(self, candidate: CellArchitecture, context: SearchContext) -> Scored:
        """Return the robust accuracy of the candidate. Raises `ConfigError` where nobody handed in how to train."""
        from robust_nas.data import split

        if context.train is None:
            raise ConfigError("evaluator short-training: SearchContext.train is None; it says how to train")
        kept, held_out = (
            context.images.subset(indices)
            for indices in split(context.images.labels, self.validation, context.seed)
        )
        try:
            found = context.train(candidate, kept, held_out, self.epochs)
        except DivergenceError:
            return Scored(None, {})
        return Scored(found.robust, {"clean": found.clean, "robust": found.robust, **found.measured})
