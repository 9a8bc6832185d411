"""The loop of sampled searches: ask, evaluate, tell. Killed at any candidate, it resumes to the same result.

A checkpoint holds every candidate, the strategy's own state, and what was asked for and is not evaluated yet. Each
candidate is a record in `metrics.jsonl`. One that cannot be scored, such as one whose training diverges, has the score
null and is never the result.
"""

from __future__ import annotations

import math
import time
from typing import Any

from robust_nas.errors import CheckpointError, CodeRefusedError, ConfigError, DivergenceError
from robust_nas.search.sampled.history import Candidate, SampledSearch
from robust_nas.search.sampled.strategy import SampledStrategy
from robust_nas.search.strategy import SearchContext, SearchOutcome
from robust_nas.spaces import CellArchitecture, architecture_from_text, count, has_cells


def search(strategy: SampledStrategy, context: SearchContext) -> SearchOutcome:
    """Return the candidate with the best score. Continues from the run's checkpoint where there is one.

    Raises `DivergenceError` where no candidate could be scored.
    """
    loop = _Loop(strategy, context)
    loop.restore()
    return loop.run_to_end()


class _Loop:
    """The state of one search: everything that a checkpoint holds."""

    def __init__(self, strategy: SampledStrategy, context: SearchContext) -> None:
        self.strategy, self.context = strategy, context
        self.search = SampledSearch(context, strategy.macs, strategy.params)
        self.asked: list[CellArchitecture] = []
        self.evaluated = 0  # of those asked for
        self.seconds = 0.0
        self.last: dict[str, Any] = {}
        self.began = self.saved = time.perf_counter()

    def run_to_end(self) -> SearchOutcome:
        """Return the outcome after the last candidate."""
        search, samples = self.search, self.strategy.samples
        while len(search.candidates) < samples:
            if not self.asked:
                self.asked = self._named(self.strategy.ask(search)[: samples - len(search.candidates)])
                if not self.asked:
                    break
            while self.evaluated < len(self.asked):
                self._evaluate(self.asked[self.evaluated])
                self.evaluated += 1
                if time.perf_counter() - self.saved >= self.context.checkpoint_seconds:
                    self.save()
                    self.saved = time.perf_counter()
                self._report()
            self.strategy.tell(search, search.candidates[-len(self.asked) :])
            self.asked, self.evaluated = [], 0
        self.save()
        best = self.best()
        if best is None:
            raise DivergenceError(
                f"{self.context.run.folder}: search, none of {len(search.candidates)} candidates could be scored; "
                f"{self.strategy.evaluator.label} gave no finite number"
            )
        found = best.architecture.model_copy(update={"name": self.context.name})
        return SearchOutcome(found, self._elapsed(), self.last)

    def best(self) -> Candidate | None:
        """Return the candidate with the highest score, the first of equals; None where none has a score."""
        scored = [candidate for candidate in self.search.candidates if candidate.score is not None]
        return max(scored, key=lambda candidate: candidate.score or 0.0, default=None)

    def _named(self, architectures: Any) -> list[CellArchitecture]:
        """Return the architectures under names that tell them apart."""
        first = len(self.search.candidates)
        return [
            architecture.model_copy(update={"name": f"{self.context.name}-{number}"})
            for number, architecture in enumerate(architectures, start=first)
        ]

    def _evaluate(self, architecture: CellArchitecture) -> None:
        """Score one candidate and log it."""
        context, candidates = self.context, self.search.candidates
        size = self.strategy.size(context.space)
        scored = self.strategy.evaluator.evaluate(architecture.resized(size.cells, size.channels), context)
        score = _finite(scored.score)
        cost = count(architecture, context.input_shape, context.classes)
        self.last = {
            "candidate": len(candidates),
            "name": architecture.name,
            "macs": cost.macs,
            "params": cost.params,
            "score": score,
            **{column: _finite(scored.measured.get(column)) for column in self.strategy.evaluator.columns},
        }
        candidates.append(Candidate(architecture, cost.macs, cost.params, score))
        context.run.log(self.last)

    def _report(self) -> None:
        best = self.best()
        note = (
            "no score yet" if best is None else f"best score {best.score:.4g} ({best.macs / 1e6:.2f} M MACs)"
        )
        self.context.progress("search", len(self.search.candidates), self.strategy.samples, note)

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self.began

    def save(self) -> None:
        """Write the checkpoint."""
        self.context.run.save_checkpoint(
            {
                "job": "sampled search",
                "seconds": self._elapsed(),
                "last": self.last,
                "candidates": [
                    {
                        "architecture": one.architecture.to_yaml(),
                        "macs": one.macs,
                        "params": one.params,
                        "score": one.score,
                    }
                    for one in self.search.candidates
                ],
                "asked": [architecture.to_yaml() for architecture in self.asked],
                "evaluated": self.evaluated,
                "strategy": self.search.state,
            }
        )

    def restore(self) -> None:
        """Put the run's checkpoint back where there is one. Raises `CheckpointError`."""
        run = self.context.run
        state = run.load_checkpoint()
        if state is None:
            return
        if state.get("job") != "sampled search":
            raise CheckpointError(
                f"{run.folder}: its checkpoint is of job {state.get('job')!r}, not of a sampled search"
            )
        with run.restoring():
            self.search.candidates = [
                Candidate(_architecture(one["architecture"]), one["macs"], one["params"], one["score"])
                for one in state["candidates"]
            ]
            self.asked = [_architecture(text) for text in state["asked"]]
            self.evaluated, self.seconds = state["evaluated"], state["seconds"]
            self.last, self.search.state = state["last"], state["strategy"]


def _finite(value: float | None) -> float | None:
    """Return a number that JSON can hold, else None."""
    return value if value is not None and math.isfinite(value) else None


def _architecture(text: str) -> CellArchitecture:
    """Return the architecture that a checkpoint holds. Raises `ValueError`, which `Run.restoring` answers."""
    try:
        found = architecture_from_text(text, "a candidate")
    except CodeRefusedError:
        raise
    except ConfigError as error:
        raise ValueError(str(error)) from None
    if not has_cells(found):
        raise ValueError(f"a candidate: it is {found.called}")
    return found
