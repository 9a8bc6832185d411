"""What a ranking ranks: a search space, a table of trained networks, or single architectures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from robust_nas.config import (
    Count,
    NonNegative,
    Options,
    absolute_if_file,
    existing_file,
    read_yaml,
    to_dict,
    tree_hash,
)
from robust_nas.errors import ArchitectureError, ConfigError, DataError, SearchSpaceError
from robust_nas.search import RANKINGS, TABLES, RankingMethod, Table, TableReader, load_table
from robust_nas.search.tables import reader_of
from robust_nas.spaces import (
    CellArchitecture,
    CellSpace,
    has_cells,
    import_all,
    is_shipped,
    load_architecture,
    load_space,
    sample,
    shipped_names,
)
from robust_nas.spaces.encoding import Encoding
from robust_nas.spaces.live_edges import live
from robust_nas.statistics.rank_agreement import LEAST
from robust_nas.workflows.config import JobConfig, SpaceChoice

SAMPLED = 100  # architectures of a space where no number is asked for
MOST_LISTED = 12  # columns of a table
DRAWS = 3000  # of a space in a row that give nothing new, after which it counts as too small


class Truth(Options):
    """The column of a table by which its networks are known."""

    column: Annotated[str, Field(min_length=1)]  # of measured accuracy
    higher_is_better: bool = True  # whether a larger value is better
    reader: Annotated[TableReader, TABLES.field()] | None = None  # None: the one that recognises the file

    def table(self, path: str) -> Table:
        """Return the table of a file. Raises `DataError` for the file and `ConfigError` for an absent column."""
        options: dict[str, Any] = {} if self.reader is None else to_dict(self.reader)
        found = load_table(path, options.pop("name", None), **options)
        found.column(self.column)
        return found


class RankConfig(JobConfig):
    """Everything that decides a ranking."""

    # a space, a table, or architectures
    candidates: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    truth: Truth | None = None  # measured accuracies of a table's networks; None: none are known
    sample: Count | None = None  # random part of the candidates; None: all, or 100 of a space
    space: SpaceChoice | None = None  # of the candidates; None: the shipped one that holds them all
    # ranking method
    method: Annotated[RankingMethod, RANKINGS.field(default="zero-cost")] = RANKINGS.make("zero-cost")
    # width of the second ranking, among candidates of 1/(1 + band) to 1 + band times the parameters
    band: NonNegative = 0.25

    @field_validator("candidates")
    @classmethod
    def _are_absolute(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name if is_shipped("", name) else absolute_if_file(name) for name in names)


class KnownTruth(NamedTuple):
    """What the candidates reached after training, by a column of a table."""

    table: str
    column: str
    higher_is_better: bool
    values: list[float]  # one a candidate
    left_out: int  # rows of the table without a value

    def digest(self) -> str:
        """Return a digest of what an agreement depends on: the file may be moved."""
        return tree_hash(
            {key: getattr(self, key) for key in ("column", "higher_is_better", "values", "left_out")}
        )


@dataclass(frozen=True)
class Candidates:
    """What is ranked, and the space that holds all of it, where one does."""

    architectures: list[CellArchitecture]
    space: CellSpace | None
    truth: KnownTruth | None = None


def read_candidates(config: RankConfig) -> Candidates:
    """Return the candidates of a config. Raises `ArchitectureError`, `SearchSpaceError`, or `DataError` for a table."""
    names, own = config.candidates, config.space.load() if config.space else None
    if config.truth is not None:
        return _of_table(config, config.truth, own)
    for name in names:
        _refuse_table(name)
    if len(names) == 1 and _is_space(names[0]):
        if own is not None:
            raise ConfigError(
                f"space: got {own.name!r}, and the candidates are those of the space {names[0]!r}"
            )
        space = load_space(names[0])
        return Candidates(_drawn(space, config.sample or SAMPLED, config.seed), space)
    every = [one for name in names for one in _read(name, own)]
    architectures = [every[index] for index in _part(config, len(every))]
    if own is not None:
        _refuse_foreign(architectures, own)
        return Candidates(architectures, own)
    spaces = (load_space(name) for name in shipped_names())
    holds_all = (space for space in spaces if not any(space.mismatch(one) for one in architectures))
    return Candidates(architectures, next(holds_all, None))


def _of_table(config: RankConfig, truth: Truth, own: CellSpace | None) -> Candidates:
    """Return the networks of a table that have a value in its column, or a part of them."""
    if len(config.candidates) != 1:
        raise ConfigError(
            f"truth.column: got {truth.column!r} with {len(config.candidates)} candidates; one table is needed"
        )
    table = truth.table(config.candidates[0])
    known = np.flatnonzero(np.isfinite(table.column(truth.column))).tolist()
    rows = [known[index] for index in _part(config, len(known))]
    if len(rows) < LEAST:
        raise ConfigError(
            f"{table.source}: got {len(rows)} networks with a value of {truth.column}; an agreement needs {LEAST}"
        )
    architectures = [table.architecture(row) for row in rows]
    if own is not None:
        _refuse_foreign(architectures, own)
    values = table.column(truth.column)[rows].tolist()
    left_out = len(table) - len(known)
    return Candidates(
        architectures,
        own or table.space,
        KnownTruth(table.source, truth.column, truth.higher_is_better, values, left_out),
    )


def _refuse_table(name: str) -> None:
    """Raise `ConfigError` for a table, of which no column was named."""
    path = existing_file(name)
    if path is None:
        return
    try:
        reader = reader_of(path)
    except DataError:  # in the form of no table
        return
    columns = list(reader.read(path).columns)
    shown = ", ".join(columns[:MOST_LISTED]) + ", ..." * (len(columns) > MOST_LISTED)
    raise ConfigError(f"{name}: is a table; name the column that is the truth by --column; it has {shown}")


def _part(config: RankConfig, number: int) -> list[int]:
    """Return the places, ascending, of a random part of so many candidates; of all where no part is asked for."""
    if config.sample is None:
        return list(range(number))
    if config.sample > number:
        raise ConfigError(f"sample: got {config.sample}; there are {number} candidates")
    kept: list[int] = np.random.default_rng(config.seed).permutation(number)[: config.sample].tolist()
    return sorted(kept)


def _refuse_foreign(architectures: Sequence[CellArchitecture], space: CellSpace) -> None:
    for one in architectures:
        if problem := space.mismatch(one):
            raise ArchitectureError(f"{one.name}: is not of the space {space.name}: {problem}")


def _is_space(name: str) -> bool:
    if is_shipped("", name):
        return True
    path = existing_file(name)
    return path is not None and path.suffix in (".yaml", ".yml") and "edges_per_node" in read_yaml(path)


def _drawn(space: CellSpace, number: int, seed: int) -> list[CellArchitecture]:
    """Return distinct random architectures of a space; those that differ in edges that compute nothing are one."""
    genotypes = math.prod(Encoding(space).sizes)
    if number > genotypes:
        raise SearchSpaceError(f"sample: got {number}; {space.name} has {genotypes} genotypes")
    found: dict[str, CellArchitecture] = {}
    draw = last = 0
    while len(found) < number:
        if draw - last == DRAWS:
            raise SearchSpaceError(
                f"sample: got {number}; {draw} draws of {space.name} gave {len(found)} different architectures"
            )
        one = sample(space, int(np.random.default_rng([seed, draw]).integers(2**32)))
        draw += 1
        if (key := tree_hash(live(one).nameless())) not in found:
            found[key], last = one, draw
    return list(found.values())


def _read(name: str, space: CellSpace | None) -> list[CellArchitecture]:
    """Return the architectures that a name, a folder, a string or a file of any form means."""
    path = existing_file(name)
    if path is not None and path.suffix not in (".yaml", ".yml", ".json"):
        return import_all(path)
    found = load_architecture(name)
    if not has_cells(found):
        raise ArchitectureError(f"{name}: is {found.called}; rankings take architectures with cells")
    return [found]
