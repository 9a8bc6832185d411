"""Local search: evaluate the neighbours of the best network so far, move to the first better one, restart at the end.

    A = front of a batch of random networks
    repeat: x = the best member of A whose neighbours are not all known
            evaluate the neighbours of x in a random order, A = front of A and these; leave x once it is dominated
            no such x: A = front of a new random batch

A neighbour differs in one operation or in the source of one edge. With one objective A is the best network so far and
its equals. White, Nolen and Savani (2021) found local search strong on NAS-Bench-201; they compare variants, of which
this is first improvement with a batch of starts. With several objectives A is the Pareto set since the start, in the
manner of Pareto local search (Paquete, Chiarandini and Stuetzle, 2004). A neighbour that has a record costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from robust_nas.search.sampled.history import Candidate, Proposal, SampledSearch
from robust_nas.search.sampled.strategy import SampledStrategy
from robust_nas.spaces.encoding import Code


class LocalSearch(SampledStrategy):
    """First improvement, with random restarts."""

    name: Literal["local-search"] = "local-search"

    def ask(self, search: SampledSearch) -> Sequence[Proposal]:
        """Return the next neighbours that have no record, or a random batch where every one of the front has."""
        state = search.state
        asked: dict[str, Code] = {}
        while len(asked) < search.batch:
            if not state.get("queue"):
                if asked:
                    break
                if not self._expand(search):
                    state["front"] = []
                    return search.random_batch()
            code = state["queue"].pop()
            found = search.find(code)
            if found is not None:
                self._take(search, found)
            elif search.accepts(code):
                asked[search.encoding.key(code)] = code
        return [Proposal(code) for code in asked.values()]

    def tell(self, search: SampledSearch, candidates: Sequence[Candidate]) -> None:
        """Take the results into the front."""
        for candidate in candidates:
            self._take(search, candidate)

    def _expand(self, search: SampledSearch) -> bool:
        """Queue the neighbours of the best member of the front that had none queued; return whether there is one."""
        state, encoding = search.state, search.encoding
        expanded = state.setdefault("expanded", set())
        for candidate in search.goal.ordered(state.get("front", [])):
            if (key := encoding.key(candidate.code)) not in expanded:
                expanded.add(key)
                neighbours = encoding.neighbours(candidate.code)
                order = search.generator(search.proposed).permutation(len(neighbours))
                state["centre"], state["queue"] = candidate, [neighbours[i] for i in order]
                return True
        return False

    def _take(self, search: SampledSearch, candidate: Candidate) -> None:
        """Put a candidate into the front; one that is better than the centre ends the work on the centre."""
        if candidate.gains is None:
            return
        state = search.state
        front = [one for one in state.get("front", []) if one.number != candidate.number]
        state["front"] = search.goal.front([*front, candidate])
        if state.get("queue") and search.goal.is_better(candidate, state["centre"]):
            state["queue"] = []
            # Its remaining neighbours matter again should it return as a start.
            state["expanded"].discard(search.encoding.key(state["centre"].code))
