"""Runs of sampled strategies on a table: many runs, with what a code means looked up once for all of them.

A run is the loop of `asking.py`, so it counts as a search does: a network whose class has no row is not accepted, is
drawn again, and costs no evaluation; nor does a network that was evaluated before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from robust_nas.errors import ConfigError
from robust_nas.search.sampled.asking import Numbered, run
from robust_nas.search.sampled.goal import Direction, Goal, Judgement
from robust_nas.search.sampled.history import Measured, SampledSearch
from robust_nas.search.sampled.strategy import SampledStrategy
from robust_nas.search.tables.table import Table
from robust_nas.spaces.coded_cost import CodedCost
from robust_nas.spaces.encoding import Code, Encoding


class TableRuns:
    """A table and objectives among its columns, for runs of any strategy.

    `rows` are those with a value of every objective. The others are as if they had no row.
    """

    def __init__(self, table: Table, objectives: Mapping[str, Direction]) -> None:
        """Raise `ConfigError` for an absent column, and where no row has a value of every objective."""
        self.table, self.goal = table, Goal(objectives, {})
        values = np.array([table.column(name) for name in objectives])  # [K, N]
        self.rows: list[int] = np.flatnonzero(np.isfinite(values).all(axis=0)).tolist()
        if not self.rows:
            raise ConfigError(f"{table.source}: no row has a value of {', '.join(objectives)}")
        measured = [dict(zip(objectives, row, strict=True)) for row in values.T.tolist()]
        self.judged = {row: self.goal.judge(measured[row]) for row in self.rows}
        self.encoding = Encoding(table.space)
        self._cost = CodedCost(self.encoding, table.size)
        self._values = {row: measured[row] for row in self.rows}
        self._row: dict[Code, int | None] = {}
        self._measured: dict[Code, Measured] = {}

    def row(self, code: Code) -> int | None:
        """Return the row of a code's network, None where it has none with all values."""
        if code not in self._row:
            found = self.table.index.get(self.encoding.key(code))
            self._row[code] = found if found in self.judged else None
        return self._row[code]

    def evaluated(self, strategy: SampledStrategy, seed: int) -> list[int]:
        """Return the rows that one run evaluates, in order; fewer than asked for where nothing new is proposed."""
        search = SampledSearch(
            encoding=self.encoding,
            seed=seed,
            goal=self.goal,
            evaluations=strategy.evaluations,
            batch=strategy.batch,
            cost=self._cost,
            macs=strategy.macs,
            params=strategy.params,
            knows=lambda code: self.row(code) is not None,
        )
        run(strategy, search, self._evaluate)
        return [row for one in search.candidates if (row := self.row(one.code)) is not None]

    def hypervolumes(
        self, rows: Sequence[int], at: Sequence[int], reference: Mapping[str, float]
    ) -> list[float]:
        """Return the exact hypervolume of the first `at` rows, for every number; `at` ascends."""
        front: list[Judgement] = []
        found, first = [], 0
        for number in at:
            front = self.goal.front([*front, *(self.judged[row] for row in rows[first:number])])
            found.append(self.goal.hypervolume(front, reference)[1])
            first = number
        return found

    def _evaluate(self, fresh: Sequence[Numbered]) -> Iterator[tuple[Numbered, Measured]]:
        for one in fresh:
            yield one, self._of(one.proposal.code)

    def _of(self, code: Code) -> Measured:
        if code not in self._measured:
            row = self.row(code)
            assert row is not None  # noqa: S101 - accepted
            gains, cost = self.judged[row].gains, self._cost(code)
            known = {"score": gains[0] if gains else None, "macs": cost.macs, "params": cost.params}
            self._measured[code] = {**known, **self._values[row]}
        return self._measured[code]
