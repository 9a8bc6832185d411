"""Ask, evaluate, tell: the loop without files, which searches and benchmarks on tables share.

Batches have a fixed size, and their results are handed to the strategy in the order of the proposals, whoever evaluated
them and when. Nothing is paid twice: a proposal of a network that has a record at this rung is answered from the
record, without counting as an evaluation; so is one that is not accepted (outside the windows, unknown to the
evaluator), without gains. A resumed search makes the same calls from its start, with the evaluations that it had as a
record; so a strategy has no state to store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from operator import index
from typing import Literal, NamedTuple, Protocol

from robust_nas.errors import SearchSpaceError
from robust_nas.search.sampled.history import Candidate, Measured, Proposal, SampledSearch

FRUITLESS = 1000  # batches in a row without an evaluation, after which the search ends
Reason = Literal["evaluations", "no proposals", "time"]


class Asks(Protocol):
    """The part of a strategy that the loop calls."""

    def ask(self, search: SampledSearch) -> Sequence[Proposal]:
        """Return the next proposals."""

    def tell(self, search: SampledSearch, candidates: Sequence[Candidate]) -> None:
        """Take their results."""


class Numbered(NamedTuple):
    """A proposal that is to be evaluated, and the number that its candidate will have."""

    number: int
    proposal: Proposal


Evaluate = Callable[[Sequence[Numbered]], Iterator[tuple[Numbered, Measured]]]


def run(strategy: Asks, search: SampledSearch, evaluate: Evaluate) -> Reason:
    """Run a search to its end and return why it ended; `search.candidates` are what was evaluated.

    `evaluate` yields what it measured of every network of a batch, in any order, each with `score`, `macs` and `params`
    among its columns. Where it yields fewer than it was given, the search ends: its time is over.
    """
    while len(search.candidates) < search.evaluations:
        proposals = [_checked(search, each) for each in list(strategy.ask(search))[: search.batch]]
        if not proposals or search.fruitless == FRUITLESS:
            return "no proposals"
        proposals, fresh = _cut(search, proposals)
        done = {one.number: (one, measured) for one, measured in evaluate(fresh)} if fresh else {}
        for number in sorted(done):
            one, measured = done[number]
            search.add(Candidate(number, *one.proposal, measured, *search.goal.judge(measured)))
        if len(done) < len(fresh):
            return "time"
        search.proposed += len(proposals)
        strategy.tell(search, [_answer(search, proposal) for proposal in proposals])
        search.fruitless = 0 if fresh else search.fruitless + 1
    return "evaluations"


def _checked(search: SampledSearch, proposal: Proposal) -> Proposal:
    """Return a proposal with plain integers. Raises `SearchSpaceError` where it holds no code of the space."""
    try:
        code, rung = proposal
        return Proposal(search.encoding.check(tuple(index(value) for value in code)), rung)
    except (TypeError, ValueError) as error:
        raise SearchSpaceError(f"the strategy asked for {str(proposal)[:200]}: {error}") from None


def _cut(search: SampledSearch, proposals: list[Proposal]) -> tuple[list[Proposal], list[Numbered]]:
    """Return the proposals up to the last evaluation that the search may have, and those of them to be evaluated."""
    first, fresh = len(search.candidates), dict[tuple[str, int | None], Numbered]()
    for place, proposal in enumerate(proposals):
        if search.find(*proposal) is not None or not search.accepts(proposal.code):
            continue
        identity = (search.encoding.key(proposal.code), proposal.rung)
        if identity not in fresh:
            if first + len(fresh) == search.evaluations:
                return proposals[:place], list(fresh.values())
            fresh[identity] = Numbered(first + len(fresh), proposal)
    return proposals, list(fresh.values())


def _answer(search: SampledSearch, proposal: Proposal) -> Candidate:
    """Return the record of a proposal under the code that was proposed."""
    found = search.find(*proposal)
    if found is None:
        return Candidate(-1, *proposal, {}, None, math.inf)
    return found._replace(code=proposal.code)
