"""Successive halving (Karnin, Koren and Somekh, 2013; Jamieson and Talwalkar, AISTATS 2016): short evaluations first.

    rung lengths  L eta^(i - R + 1), i = 0 .. R - 1, rounded down; L is the evaluator's own length
    n_0 random candidates at the first rung; the best n_i = n_0 / eta^i, rounded down, go on to rung i

n_0 is the largest number of which all rungs together need at most `evaluations`. An evaluation at any rung counts as
one, and each starts from the beginning. The result is taken at the highest rung.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from robust_nas.config import Count
from robust_nas.search.sampled.history import Candidate, Proposal, SampledSearch
from robust_nas.search.sampled.strategy import SampledStrategy


class SuccessiveHalving(SampledStrategy):
    """The best of every rung go on to a longer evaluation."""

    columns: ClassVar[tuple[str, ...]] = ("candidate", "name", "macs", "params", "score", "rung")

    name: Literal["successive-halving"] = "successive-halving"
    rungs: Count = 2  # R, evaluations of growing length
    eta: Count = 3  # one candidate of so many goes on to the next rung

    @model_validator(mode="after")
    def _can_halve(self) -> Self:
        key = self.evaluator.rung_key
        if key is None:
            raise ValueError(
                f"evaluator {self.evaluator.label} has no rungs; successive-halving needs one whose length can be set"
            )
        if self.eta < 2:
            raise ValueError(f"eta: got {self.eta}; at least 2 is needed")
        least = self.evaluator.least_rung * self.eta ** (self.rungs - 1)
        if self.top_rung is not None and self.top_rung < least:
            raise ValueError(
                f"evaluator.{key}: got {self.top_rung}; {self.rungs} rungs with eta {self.eta} need at least {least}"
            )
        if not self._counts()[-1]:
            raise ValueError(
                f"evaluations: got {self.evaluations}; {self.rungs} rungs with eta {self.eta} need at least "
                f"{sum(self.eta**i for i in range(self.rungs))}"
            )
        return self

    def _counts(self) -> list[int]:
        """Return n_i of every rung."""
        first = self.evaluations
        while sum(counts := [first // self.eta**i for i in range(self.rungs)]) > self.evaluations:
            first -= 1
        return counts

    def _length(self, search: SampledSearch, rung: int) -> int:
        top = search.top_rung
        assert top is not None  # noqa: S101 - validated
        length: int = top // self.eta ** (self.rungs - 1 - rung)
        return length

    def ask(self, search: SampledSearch) -> Sequence[Proposal]:
        """Return the next networks of the present rung; none after the last one."""
        state, counts = search.state, self._counts()
        rung, done = state.setdefault("rung", 0), state.setdefault("done", [])
        length = self._length(search, rung)
        if rung == 0 and len(done) < counts[0]:
            draws = search.random_batch(length, counts[0] - len(done))
            if draws:
                return draws
        if rung > 0 and len(done) < len(state["chosen"]):
            return [Proposal(one.code, length) for one in state["chosen"][len(done) :][: search.batch]]
        if rung + 1 == self.rungs:
            return []
        chosen = search.goal.ordered(done)[: counts[rung + 1]]
        state.update(rung=rung + 1, done=[], chosen=chosen)
        return self.ask(search) if chosen else []

    def tell(self, search: SampledSearch, candidates: Sequence[Candidate]) -> None:
        """Count the results to their rung."""
        search.state["done"].extend(candidates)
