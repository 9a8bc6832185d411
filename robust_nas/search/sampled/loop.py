"""Sampled searches in a run folder. Killed at any candidate, one resumes to the same result.

`asking.py` has the loop. A checkpoint holds what was evaluated, nothing else: a resumed search asks from the start and
finds it in the record. Each candidate is a line of `metrics.jsonl`, in the order of the proposals. One that cannot be
scored, such as one whose training diverges, has the score null and is never the result.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from robust_nas.errors import CheckpointError, ConfigError, DivergenceError, SearchSpaceError
from robust_nas.run_folder import Run
from robust_nas.search.sampled.asking import Numbered, Reason, run
from robust_nas.search.sampled.history import Candidate, Measured, SampledSearch
from robust_nas.search.sampled.measured import LATENCY
from robust_nas.search.sampled.strategy import SampledStrategy
from robust_nas.search.strategy import Scored, SearchContext, SearchOutcome, finite
from robust_nas.spaces import CellArchitecture, CellSpace, Size, count
from robust_nas.spaces.coded_cost import CodedCost
from robust_nas.spaces.encoding import Code, Encoding


def search(strategy: SampledStrategy, context: SearchContext) -> SearchOutcome:
    """Return the candidate that the strategy's rule takes. Continues from the run's checkpoint where there is one.

    Raises `DivergenceError` where no candidate could be scored, and `SearchSpaceError` where none of those scored is
    within the constraints.
    """
    if LATENCY in strategy.measured and context.latency is None:
        raise ConfigError(f"{LATENCY}: SearchContext.latency is None; it says how to measure")
    loop = _Loop(strategy, context)
    loop.restore()
    return loop.run_to_end()


class _Loop:
    """The state of one search in its folder."""

    def __init__(self, strategy: SampledStrategy, context: SearchContext) -> None:
        self.strategy, self.context = strategy, context
        encoding = Encoding(context.space)
        self.search = SampledSearch(
            encoding=encoding,
            seed=context.seed,
            goal=strategy.goal,
            evaluations=strategy.evaluations,
            batch=strategy.batch,
            cost=CodedCost(encoding, context.network, context.input_shape, context.classes),
            macs=strategy.macs,
            params=strategy.params,
            knows=lambda code: strategy.evaluator.knows(self._architecture(code, "candidate")),
            top_rung=strategy.top_rung,
        )
        self.evaluated: dict[tuple[Code, int | None], dict[str, Any]] = {}  # records, by what was proposed
        self.written = 0  # records that are in the metrics
        self.seconds = 0.0
        self.began = self.saved = time.perf_counter()

    def run_to_end(self) -> SearchOutcome:
        """Return the outcome after the last candidate."""
        try:
            reason = run(self.strategy, self.search, self._evaluate)
        finally:  # an error of one candidate does not cost the others
            self.save()
        candidates = self.search.candidates
        taken = self.strategy.taken(candidates)
        if taken is None:
            raise self._nothing_found(candidates, reason)
        found = self._architecture(taken.code, self.context.name)
        stopped = {"reason": reason, "evaluations": len(candidates)}
        return SearchOutcome(found, self._elapsed(), dict(candidates[-1].measured), stopped=stopped)

    def _nothing_found(self, candidates: Sequence[Candidate], reason: Reason) -> Exception:
        """Return the error of a search without a result."""
        place = f"{self.context.run.folder}: search"
        if not candidates:
            budget = (
                f"budget: got {self.strategy.budget:g} s, which were over" if reason == "time" else reason
            )
            return SearchSpaceError(f"{place}, {budget}: no candidate was evaluated")
        nearest = self.search.goal.ordered(candidates)[:1]
        if not nearest:
            return DivergenceError(
                f"{place}, none of {len(candidates)} candidates could be scored; "
                f"{self.strategy.evaluator.label} gave no finite number"
            )
        windows = [f"{key} {low:g}:{high:g}" for key, (low, high) in self.strategy.constraints.items()]
        values = [f"{key} {nearest[0].measured[key]}" for key in self.strategy.constraints]
        return SearchSpaceError(
            f"{place}.constraints: none of {len(candidates)} candidates is within {', '.join(windows)}; "
            f"nearest: {nearest[0].measured['name']} with {', '.join(values)}"
        )

    def _architecture(self, code: Code, name: str) -> CellArchitecture:
        return self.search.encoding.decode(code, name, self.context.network)

    def _evaluate(self, fresh: Sequence[Numbered]) -> Iterator[tuple[Numbered, Measured]]:
        """Yield the record of every proposal: the known ones, then the others, until the time is over."""
        new = [one for one in fresh if one.proposal not in self.evaluated]
        yield from ((one, self.evaluated[one.proposal]) for one in fresh if one not in new)
        whole = [new] if new else []
        batches = [[one] for one in new] if self.context.elsewhere is None else whole
        for batch in batches:
            if self.strategy.budget is not None and self._elapsed() >= self.strategy.budget:
                return
            for one, record in self._scored(batch):
                self.evaluated[one.proposal] = record
                self._log(fresh)
                if time.perf_counter() - self.saved >= self.context.checkpoint_seconds:
                    self.save()
                    self.saved = time.perf_counter()
                self._report()
                yield one, record

    def _scored(self, batch: Sequence[Numbered]) -> Iterator[tuple[Numbered, dict[str, Any]]]:
        """Yield the records of proposals as they are evaluated, here or elsewhere."""
        context, size = self.context, self.strategy.size(self.context.space)
        named = [self._architecture(one.proposal.code, f"{context.name}-{one.number}") for one in batch]
        tasks = [
            (architecture.resized(size.cells, size.channels), one.proposal.rung)
            for one, architecture in zip(batch, named, strict=True)
        ]
        if context.elsewhere is None:
            evaluator = self.strategy.evaluator
            scores: Iterator[tuple[int, Scored]] = (
                (place, evaluator.at_rung(rung).evaluate(candidate, context))
                for place, (candidate, rung) in enumerate(tasks)
            )
        else:
            scores = context.elsewhere(tasks)
        for place, scored in scores:
            yield batch[place], self._record(batch[place], named[place], scored)

    def _record(self, one: Numbered, architecture: CellArchitecture, scored: Scored) -> dict[str, Any]:
        context, cost = self.context, self.search.cost(one.proposal.code)
        counted = count(architecture, context.input_shape, context.classes)
        if counted != cost:
            raise SearchSpaceError(
                f"{context.space.name}: the cost of {architecture.called} is not the sum of its edges' "
                f"(counted {counted}, summed {cost}), which sampled searches need"
            )
        known = {
            "candidate": one.number,
            "name": architecture.name,
            "macs": cost.macs,
            "params": cost.params,
            "score": finite(scored.score),
            "rung": one.proposal.rung,
        }
        measured = dict(scored.measured)
        if LATENCY in self.strategy.measured and context.latency is not None:
            measured[LATENCY] = context.latency(architecture)
        return {
            **{column: known[column] for column in self.strategy.columns},
            **{column: finite(measured.get(column)) for column in self._columns if column not in known},
        }

    @property
    def _columns(self) -> tuple[str, ...]:
        """Return the columns after those of the strategy."""
        return tuple(dict.fromkeys((*self.strategy.evaluator.columns, *self.strategy.measured)))

    def _log(self, fresh: Sequence[Numbered]) -> None:
        """Log every record whose turn it is: those before it are in the metrics."""
        for one in fresh:
            if one.number == self.written and one.proposal in self.evaluated:
                self.context.run.log(self.evaluated[one.proposal])
                self.written += 1

    def _report(self) -> None:
        column, direction = next(iter(self.strategy.objectives.items()))
        values = [value for record in self.evaluated.values() if (value := record[column]) is not None]
        best = (max if direction == "max" else min)(values, default=None)
        note = "no score yet" if best is None else f"best {column} {best:.4g}"
        self.context.progress("search", len(self.evaluated), self.strategy.evaluations, note)

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self.began

    def save(self) -> None:
        """Write the checkpoint."""
        self.context.run.save_checkpoint(
            {
                "job": "sampled search",
                "seconds": self._elapsed(),
                "written": self.written,
                "evaluated": [
                    {"code": list(code), "rung": rung, "record": record}
                    for (code, rung), record in self.evaluated.items()
                ],
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
            for one in state["evaluated"]:
                code, record = self.search.encoding.check(one["code"]), one["record"]
                missing = {*self.strategy.columns, *self._columns} - record.keys()
                if missing:
                    raise ValueError(f"the record of candidate {code} lacks {', '.join(sorted(missing))}")
                self.evaluated[code, one["rung"]] = record
            self.written, self.seconds = state["written"], float(state["seconds"])


def evaluated_networks(
    run: Run, space: CellSpace, size: Size, names: Sequence[str]
) -> list[CellArchitecture]:
    """Return the candidates of these names that a search evaluated, at `size`, in the order of `names`.

    Raises `CheckpointError` for a checkpoint that does not hold them.
    """
    state, encoding = run.load_checkpoint() or {}, Encoding(space)
    with run.restoring():
        codes = {one["record"]["name"]: encoding.check(one["code"]) for one in state["evaluated"]}
        return [encoding.decode(codes[name], name, size) for name in names]
