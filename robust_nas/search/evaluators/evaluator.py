"""The protocol of evaluators: from an architecture to a score and what else was measured."""

from __future__ import annotations

from typing import ClassVar, Self

from robust_nas.registry import Method
from robust_nas.search.strategy import Scored as Scored
from robust_nas.search.strategy import SearchContext
from robust_nas.spaces import CellArchitecture


class Evaluator(Method):
    """Base of all evaluators. A higher score is better; the same candidate in the same search scores the same."""

    trains: ClassVar[bool] = False  # whether it trains candidates by the run's recipe
    columns: ClassVar[tuple[str, ...]] = ()  # of a record, after those of the strategy
    rung_key: ClassVar[str | None] = None  # the option that says how long an evaluation is: epochs, steps
    least_rung: ClassVar[int] = 1  # of that option
    parallel: ClassVar[bool] = (
        True  # whether workers may evaluate candidates, each with nothing but the context
    )

    def at_rung(self, length: int | None) -> Self:
        """Return the evaluator whose evaluations are of this length; None: its own."""
        if length is None or self.rung_key is None:
            return self
        return self.model_copy(update={self.rung_key: length})

    def measures(self, column: str) -> bool:
        """Return whether it returns a value of this column."""
        return column in self.columns

    def knows(self, candidate: CellArchitecture) -> bool:
        """Return whether it can score a candidate; one that it does not know is never proposed to it."""
        return True

    def evaluate(self, candidate: CellArchitecture, context: SearchContext) -> Scored:
        """Return the score of a candidate at the size of the search. Images are those of the context alone."""
        raise NotImplementedError(f"{type(self).__name__} evaluates nothing")
