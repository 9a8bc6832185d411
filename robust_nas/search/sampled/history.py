"""What a sampled strategy sees of its search: the candidates so far, the record by network, seeded draws.

Nothing here knows of files, images or networks: a benchmark on a table runs the same strategies on the same search.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from robust_nas.errors import SearchSpaceError
from robust_nas.search.sampled.goal import Goal
from robust_nas.search.window import Window
from robust_nas.spaces.coded_cost import CodedCost
from robust_nas.spaces.encoding import Code, Encoding
from robust_nas.spaces.sampling import MAX_DRAWS

STALE = 5  # batches in a row without an evaluation, after which strategies that change what is known draw at random

Measured = Mapping[str, float | None]  # of a candidate, by column


class Proposal(NamedTuple):
    """A network that a strategy asks for, at a rung: the length of its evaluation; None: the evaluator's own."""

    code: Code
    rung: int | None = None


class Candidate(NamedTuple):
    """A network with what was measured of it, its gains (None: it has none) and its distance from the constraints."""

    number: int  # in the order of evaluation; -1: it was not evaluated
    code: Code
    rung: int | None
    measured: Measured
    gains: tuple[float, ...] | None
    violation: float

    @property
    def score(self) -> float | None:
        """Return the evaluator's score, None where it has none."""
        return self.measured.get("score")


@dataclass
class SampledSearch:
    """The state of one search. `state` is the strategy's own; a resumed search builds it again by the same calls."""

    encoding: Encoding
    seed: int
    goal: Goal
    evaluations: int  # how many the search may have
    batch: int  # how many proposals are asked for at a time
    cost: CodedCost  # of the networks at their final size
    macs: Window | None = None
    params: Window | None = None
    knows: Callable[[Code], bool] = lambda code: True  # whether the evaluator can score it
    top_rung: int | None = None  # the evaluator's own length, where it has rungs
    candidates: list[Candidate] = field(default_factory=list)  # in the order of evaluation
    state: dict[str, Any] = field(default_factory=dict)
    proposed: int = 0  # so far, also those that were answered from the record
    fruitless: int = 0  # batches in a row without an evaluation
    _record: dict[tuple[str, int | None], Candidate] = field(default_factory=dict, repr=False)
    _accepted: dict[Code, bool] = field(default_factory=dict, repr=False)

    def generator(self, number: int) -> np.random.Generator:
        """Return the generator of draws for proposal `number`: by the seed and the number alone."""
        return np.random.default_rng([self.seed, number])

    def numbers(self) -> range:
        """Return the numbers of the next batch of proposals."""
        return range(self.proposed, self.proposed + self.batch)

    @property
    def stale(self) -> bool:
        """Return whether the strategy has asked for nothing new for long."""
        return self.fruitless >= STALE

    def accepts(self, code: Code) -> bool:
        """Return whether a network is within the windows of MACs and parameters, and the evaluator knows it."""
        if code not in self._accepted:
            self._accepted[code] = self._fits(code) and self.knows(code)
        return self._accepted[code]

    def find(self, code: Code, rung: int | None = None) -> Candidate | None:
        """Return the record of a network at a rung, in whatever form it was proposed; None where it has none."""
        return self._record.get((self.encoding.key(code), rung))

    def add(self, candidate: Candidate) -> None:
        """Take an evaluated candidate into the record."""
        self.candidates.append(candidate)
        self._record[self.encoding.key(candidate.code), candidate.rung] = candidate

    def random(
        self, number: int, rung: int | None = None, drawn: Container[str] = frozenset()
    ) -> Code | None:
        """Return a network that is accepted and has no record at the rung, uniform among the codes, for a proposal.

        Networks whose keys are in `drawn` are drawn again too. None where no draw of many is accepted and new. Raises
        `SearchSpaceError` where none is accepted and nothing was evaluated.
        """
        draws = self.generator(number)
        seen: list[Code] = []
        accepted = False
        for _ in range(MAX_DRAWS):
            code = self.encoding.sample(draws)
            if not self.accepts(code):
                seen.append(code)
                continue
            accepted = True
            if self.find(code, rung) is None and self.encoding.key(code) not in drawn:
                return code
        if accepted or drawn or self.candidates:  # a narrow window: what was paid for is the result
            return None
        raise SearchSpaceError(f"{self.encoding.space.name}: {self._refusal(seen)}")

    def random_batch(self, rung: int | None = None, most: int | None = None) -> list[Proposal]:
        """Return a batch of different networks by `random`, at most `most`; fewer where there are no more."""
        found: dict[str, Code] = {}
        for number in self.numbers()[:most]:
            code = self.random(number, rung, found)
            if code is None:
                break
            found[self.encoding.key(code)] = code
        return [Proposal(code, rung) for code in found.values()]

    def _fits(self, code: Code) -> bool:
        if self.macs is None and self.params is None:
            return True
        cost = self.cost(code)
        return _within(cost.macs, self.macs) and _within(cost.params, self.params)

    def _refusal(self, seen: list[Code]) -> str:
        """Return which windows no draw met, and the costs that were seen."""
        windows = (("MACs", self.macs), ("params", self.params))
        wanted = [f"{window[0]:g} to {window[1]:g} {name}" for name, window in windows if window]
        words = f"with {' and '.join(wanted)} " if wanted else ""
        text = f"no architecture {words}among {len(seen)} draws"
        if any(self._fits(code) for code in seen):
            return f"{text} is known to the evaluator; it knows none of those drawn"
        costs = [self.cost(code) for code in seen]
        macs, params = sorted(one.macs for one in costs), sorted(one.params for one in costs)
        return f"{text}; seen: {macs[0]}..{macs[-1]} MACs, {params[0]}..{params[-1]} params"


def _within(value: float, limits: tuple[float, float] | None) -> bool:
    return limits is None or limits[0] <= value <= limits[1]
