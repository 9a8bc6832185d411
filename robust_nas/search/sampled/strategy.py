"""The protocol of sampled strategies: `ask` for networks, `tell` what was measured of them.

A new strategy is a subclass with `ask`, which sees every candidate evaluated so far; most need nothing else. What it
cannot derive from them it keeps in `search.state`. Draws come from `search.generator(number)`, with the number of the
proposal (`search.numbers()` are those of the next batch): they depend on the seed and that number alone. A resumed
search makes the same calls from the start, with what was evaluated as a record: `ask` and `tell` must depend on nothing
else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from robust_nas.config import Count, CountOrZero, Number
from robust_nas.search.duration import Duration
from robust_nas.search.evaluators import EVALUATORS
from robust_nas.search.evaluators.evaluator import Evaluator
from robust_nas.search.sampled.goal import Direction, Goal, Take
from robust_nas.search.sampled.history import Candidate, Proposal, SampledSearch
from robust_nas.search.sampled.measured import COMPRESSED_ROBUST, MEASURED, LatencyOptions
from robust_nas.search.strategy import Criterion, Record, Strategy
from robust_nas.search.window import Finite, Limits, Window

COUNTED = ("score", "macs", "params")  # columns of every record that may be an objective


class SampledStrategy(Strategy):
    """Base of sampled strategies. The result is the candidate that `take` names among those within the constraints."""

    kind: ClassVar[Literal["one-shot", "sampled"]] = "sampled"
    columns: ClassVar[tuple[str, ...]] = ("candidate", "name", "macs", "params", "score")
    figure: ClassVar[str] = "sampled-search"
    drawn_as: ClassVar[str] = "candidates"
    package: ClassVar[str | None] = (
        None  # of another project, which makes the proposals; without it there is no search
    )
    moved: ClassVar[Mapping[str, str]] = {
        "epochs": "evaluator.epochs, of the evaluator short-training",
        "samples": "evaluations",
    }

    evaluations: Count = 20  # candidates that are evaluated
    budget: Duration | None = None  # time of evaluation after which the search ends, all calls together
    batch: Count = 4  # proposals that are made before any of them is answered; part of the result
    macs: Window | None = None  # MACs of a candidate at its final size
    params: Window | None = None  # parameters of a candidate at its final size
    # columns with max or min
    objectives: dict[str, Direction] = Field(default={"score": "max"}, min_length=1)
    constraints: dict[str, Limits] = Field(default={})  # least and largest values of measured columns
    take: Take = "best"  # result: best of the first objective, or the knee of the Pareto set
    # point of the hypervolume; {}: the worst of every objective among the candidates
    reference: dict[str, Finite] = Field(default={})
    # what scores a candidate
    evaluator: Annotated[Evaluator, EVALUATORS.field(default="short-training")] = EVALUATORS.make(
        "short-training"
    )
    latency: LatencyOptions = LatencyOptions()  # source of `latency_ms`
    compressed_macs: Annotated[Number, Field(gt=0, lt=1)] = 0.5  # share of the MACs, of `compressed_robust`
    # networks of the Pareto set that are trained and evaluated after the search
    finalists: CountOrZero = Field(default=0, exclude_if=lambda count: count == 0)

    @model_validator(mode="after")
    def _columns_exist(self) -> Self:
        measured = [column for column in self.evaluator.columns if column not in COUNTED]
        measured += [column for column in MEASURED if column not in measured]
        for key, allowed in (("objectives", [*COUNTED, *measured]), ("constraints", ["score", *measured])):
            for column in getattr(self, key):
                if column in ("macs", "params") and key == "constraints":
                    raise ValueError(f"constraints.{column}: it is a key of its own: {column}: LOW:HIGH")
                if column not in allowed:
                    raise ValueError(
                        f"{key}: got {column[:100]!r}; columns of the evaluator {self.evaluator.label}: "
                        f"{', '.join(allowed)}"
                    )
        if self.reference and self.reference.keys() != self.objectives.keys():
            raise ValueError(
                f"reference: got {', '.join(self.reference)}; "
                f"a value for each of {', '.join(self.objectives)} is needed"
            )
        if self.take == "knee" and len(self.objectives) == 1:
            raise ValueError("take: got 'knee'; it needs two objectives or more")
        if self.finalists and len(self.objectives) == 1:
            raise ValueError(
                f"finalists: got {self.finalists}; they are of a Pareto set, which needs two objectives or more"
            )
        if COMPRESSED_ROBUST in self.measured and not self.evaluator.trains:
            raise ValueError(
                f"{COMPRESSED_ROBUST}: evaluator {self.evaluator.label} keeps no trained network to compress; "
                "short-training does"
            )
        return self

    @property
    def alone(self) -> Self:
        """Return the strategy without controls and finalists."""
        return self.model_copy(update={"controls": 0, "finalists": 0})

    @property
    def followed(self) -> bool:
        """Return whether networks are trained and evaluated after the search."""
        return self.controls + self.finalists > 0

    @property
    def measured(self) -> tuple[str, ...]:
        """Return the columns of objectives and constraints that the workflow measures, not the evaluator."""
        named = {*self.objectives, *self.constraints}
        return tuple(one for one in MEASURED if one in named and not self.evaluator.measures(one))

    @property
    def goal(self) -> Goal:
        """Return objectives, constraints and rule."""
        return Goal(self.objectives, self.constraints, self.take)

    @property
    def criterion(self) -> Criterion:  # type: ignore[override] # of the values
        """Return the first objective."""
        column, direction = next(iter(self.objectives.items()))
        return Criterion(column, column, lower_is_better=direction == "min")

    @property
    def trains(self) -> bool:
        """Return whether candidates are trained by the run's recipe."""
        return self.evaluator.trains

    @property
    def top_rung(self) -> int | None:
        """Return the evaluator's own length where it has rungs."""
        key = self.evaluator.rung_key
        length: int | None = None if key is None else getattr(self.evaluator, key)
        return length

    def ask(self, search: SampledSearch) -> Sequence[Proposal]:
        """Return the next networks to evaluate, at most a batch; none ends the search early."""
        raise NotImplementedError(f"{type(self).__name__} asks for no architecture")

    def tell(self, search: SampledSearch, candidates: Sequence[Candidate]) -> None:
        """Take the results of the last proposals, in their order."""

    def describe(self) -> str:
        """Return strategy, evaluator and number of candidates, for captions."""
        return f"{self.label}, {self.evaluations} candidates by {self.evaluator.label}"

    def comparable(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates of the highest rung that has one within the constraints: those that compare."""
        for rung in sorted({one.rung or 0 for one in candidates}, reverse=True):
            own = self.goal.within([one for one in candidates if (one.rung or 0) == rung])
            if own:
                return own
        return []

    def taken(self, candidates: Sequence[Candidate]) -> Candidate | None:
        """Return the result; None where no candidate has a score within the constraints."""
        return self.goal.taken(self.comparable(candidates))

    def result(self, records: Sequence[Record]) -> dict[str, Any]:
        """Return the one taken with its objectives, the Pareto set, its hypervolume, and what the search evaluated."""
        candidates = [
            Candidate(one["candidate"], (), one.get("rung"), one, *self.goal.judge(one)) for one in records
        ]
        comparable = self.comparable(candidates)
        taken = self.goal.taken(comparable)
        assert taken is not None  # noqa: S101 - the loop refused it
        front = self.goal.front(comparable)
        reference, volume = self.goal.hypervolume(comparable, self.reference)
        columns = ["score", *(column for column in self.objectives if column != "score")]
        found = {
            **{column: taken.measured[column] for column in columns},
            "taken": taken.measured["name"],
            "candidates": len(records),
            "evaluator": self.evaluator.label,
        }
        if len(self.objectives) == 1:
            return found
        kept = ("name", *self.objectives)
        return {
            **found,
            "pareto_set": [{key: one.measured[key] for key in kept} for one in front],
            "hypervolume": {"value": volume, "reference": reference},
        }
