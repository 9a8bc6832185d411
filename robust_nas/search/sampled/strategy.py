"""The protocol of sampled strategies: `ask` for architectures, `tell` what their scores are.

A new strategy is a subclass with `ask`, which sees every candidate scored so far; most need nothing else. What it
cannot derive from them it keeps in `search.state`, which the checkpoint holds. Draws come from
`search.generator(number)`: they depend on the seed and the candidate's number alone, so a resumed search repeats them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from robust_nas.config import Count
from robust_nas.search.evaluators import EVALUATORS
from robust_nas.search.evaluators.evaluator import Evaluator
from robust_nas.search.sampled.history import Candidate, SampledSearch
from robust_nas.search.strategy import Criterion, Record, Strategy
from robust_nas.search.window import Window
from robust_nas.spaces import CellArchitecture


class SampledStrategy(Strategy):
    """Base of sampled strategies. A higher score is better; the architecture with the best one is the result."""

    kind: ClassVar[Literal["one-shot", "sampled"]] = "sampled"
    criterion: ClassVar[Criterion] = Criterion("score", "score", lower_is_better=False)
    columns: ClassVar[tuple[str, ...]] = ("candidate", "name", "macs", "params", "score")
    figure: ClassVar[str] = "sampled-search"
    drawn_as: ClassVar[str] = "candidates"
    moved: ClassVar[Mapping[str, str]] = {"epochs": "evaluator.epochs, of the evaluator short-training"}

    samples: Count = 20  # candidates that are evaluated
    macs: Window | None = None  # of a candidate at its final size
    params: Window | None = None
    evaluator: Annotated[Evaluator, EVALUATORS.field(default="short-training")] = EVALUATORS.make(
        "short-training"
    )

    @property
    def trains(self) -> bool:
        """Return whether candidates are trained by the run's recipe."""
        return self.evaluator.trains

    def ask(self, search: SampledSearch) -> Sequence[CellArchitecture]:
        """Return the next architectures to evaluate, at the final size; none ends the search early."""
        raise NotImplementedError(f"{type(self).__name__} asks for no architecture")

    def tell(self, search: SampledSearch, candidates: Sequence[Candidate]) -> None:
        """Take the scores of what was asked for; `search.candidates` ends with them."""

    def describe(self) -> str:
        """Return strategy, evaluator and number of candidates, for captions."""
        return f"{self.label}, {self.samples} candidates by {self.evaluator.label}"

    def result(self, records: Sequence[Record]) -> dict[str, Any]:
        """Return the best score, how many candidates were evaluated, and by what."""
        scores = [record["score"] for record in records if record["score"] is not None]
        return {"score": max(scores), "candidates": len(records), "evaluator": self.evaluator.label}
