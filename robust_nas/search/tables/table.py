"""A table: one row an isomorphism class of a space, columns of numbers.

Rows of one class are averaged, column by column, over those that have a value. A value that is absent is NaN within
`columns`, and an error where it is asked for. A half table has classes without a row.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from robust_nas.errors import ArchitectureError, ConfigError, DataError
from robust_nas.spaces import CellArchitecture, CellSpace, Edge, Size, has_cells, named_architecture
from robust_nas.spaces.architecture import Architecture
from robust_nas.spaces.isomorphism import architecture_class, cell_class, isomorphism_class, simplifies

Floats = NDArray[np.float64]
Genotype = Mapping[str, Sequence[Sequence[tuple[str, int]]]]  # per kind, of every node (operation, source)
MOST_LISTED = 12


class Entry(NamedTuple):
    """A row of a file: the table's id of the network, its genotype, its numbers (NaN: absent), its place."""

    id: str
    genotype: Genotype
    values: Sequence[float]
    place: str


@dataclass(frozen=True, eq=False)
class Table:
    """A table of N classes. `columns` are `[N]` each; `genotypes` and `ids` are those of a class's first row."""

    source: str
    space: CellSpace
    size: Size  # of all its networks
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    genotypes: tuple[Genotype, ...]
    columns: Mapping[str, Floats]
    of_id: Mapping[str, int]  # every id, aliases too -> row

    @classmethod
    def of(
        cls,
        source: str,
        space: CellSpace,
        size: Size,
        columns: Sequence[str],
        entries: Iterable[Entry],
        aliases: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the table of these rows; `aliases` are ids without a row of their own -> ids with one.

        Raises `DataError` for an id that comes twice, an alias of no row, and a file without rows or columns.
        """
        rows: dict[str, int] = {}  # class -> row
        of_id: dict[str, int] = {}
        firsts: list[Entry] = []
        found: list[list[Sequence[float]]] = []
        for entry in entries:
            if entry.id in of_id:
                raise DataError(f"{entry.place}: id {entry.id[:100]!r} comes twice")
            row = rows.setdefault(class_of(space, entry.genotype), len(rows))
            of_id[entry.id] = row
            if row == len(firsts):
                firsts.append(entry)
                found.append([])
            found[row].append(entry.values)
        if not firsts or not columns:
            raise DataError(f"{source}: has {len(firsts)} rows and {len(columns)} columns of numbers")
        for alias, target in (aliases or {}).items():
            if target not in of_id:
                raise DataError(f"{source}: id {alias!r} is an alias of {target[:100]!r}, which has no row")
            of_id[alias] = of_id[target]
        values = np.array([_means(each) for each in found], dtype=float)
        return cls(
            source,
            space,
            size,
            tuple(rows),
            tuple(entry.id for entry in firsts),
            tuple(entry.genotype for entry in firsts),
            {name: values[:, number] for number, name in enumerate(columns)},
            of_id,
        )

    def __len__(self) -> int:
        return len(self.classes)

    @cached_property
    def index(self) -> dict[str, int]:
        """Return the row of every class."""
        return {found: row for row, found in enumerate(self.classes)}

    def column(self, name: str) -> Floats:
        """Return a column `[N]`, NaN where a value is absent. Raises `ConfigError` for an unknown one."""
        if name not in self.columns:
            near = difflib.get_close_matches(name, self.columns, 3, 0.4)
            near += [each for each in self.columns if each not in near]
            listed = ", ".join(near[:MOST_LISTED])
            more = f" and {len(near) - MOST_LISTED} more" if len(near) > MOST_LISTED else ""
            raise ConfigError(f"{self.source}: has no column {name[:100]!r}; it has {listed}{more}")
        return self.columns[name]

    def has(self, found: str, *columns: str) -> bool:
        """Return whether a class has a row with a value in each of these columns."""
        row = self.index.get(found)
        return row is not None and all(math.isfinite(self.column(name)[row]) for name in columns)

    def value(self, found: str, column: str) -> float:
        """Return the value of a class. Raises `DataError` where it has no row, or no value in the column."""
        values = self.column(column)
        row = self.index.get(found)
        if row is None:
            raise DataError(f"{self.source}: has no row of the class {found[:200]!r}")
        if not math.isfinite(values[row]):
            raise DataError(f"{self.source}: {self.ids[row]}: {column} is absent")
        return float(values[row])

    def row_of(self, text: str) -> int:
        """Return the row of an id or of a string of NAS-Bench-201. Raises `DataError` for one without a row."""
        row = self.of_id.get(text)
        if row is None:
            named = named_architecture(text)
            row = None if named is None else self.index.get(self.class_of(named))
        if row is None:
            raise DataError(
                f"{self.source}: has no row for {text[:200]!r}, an id or a string of its networks"
            )
        return row

    def class_of(self, architecture: Architecture) -> str:
        """Return the class of an architecture. Raises `ArchitectureError` for one of another space."""
        wrong = (
            self.space.mismatch(architecture) if has_cells(architecture) else f"it is {architecture.called}"
        )
        if wrong is not None:
            raise ArchitectureError(
                f"{architecture.name}: is not of {self.space.name}, the space of {self.source}: {wrong}"
            )
        return isomorphism_class(architecture)

    def architecture(self, row: int) -> CellArchitecture:
        """Return the network of a row, at the table's size."""
        genotype = {
            kind: [[Edge(*edge) for edge in node] for node in nodes]
            for kind, nodes in self.genotypes[row].items()
        }
        return self.space.architecture(f"{self.space.name}-{self.ids[row]}", genotype, self.size)

    def joined(self, other: Table, columns: Mapping[str, str]) -> Table:
        """Return the table with columns of another one, joined by class; `columns` maps its names to new ones.

        A class without a row in `other` gets an absent value. Raises `ConfigError` for a table of another space, an
        absent column, and a name that is taken.
        """
        if other.space != self.space:
            raise ConfigError(
                f"{other.source}: is a table of {other.space.name}; {self.source} is one of {self.space.name}"
            )
        taken = [name for name in columns.values() if name in self.columns]
        if taken:
            raise ConfigError(f"{self.source}: already has a column {taken[0]!r}")
        rows = [other.index.get(found, len(other)) for found in self.classes]
        more = {name: np.append(other.column(column), math.nan)[rows] for column, name in columns.items()}
        return replace(self, columns={**self.columns, **more})


def class_of(space: CellSpace, genotype: Genotype) -> str:
    """Return the isomorphism class of a genotype of a space, from plain data."""
    inputs, aggregation, output = space.topology.inputs, space.topology.aggregation, space.output
    return architecture_class(
        {
            kind: cell_class(
                genotype[kind],
                inputs=inputs,
                concat=output,
                simplify=simplifies(aggregation, len(output), kind in space.layout.reduction_cells),
            )
            for kind in space.kinds
        }
    )


def _means(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of every column over the rows with a value, NaN where none has one."""
    if len(rows) == 1:
        return list(rows[0])
    present = ([value for value in column if math.isfinite(value)] for column in zip(*rows, strict=True))
    return [sum(values) / len(values) if values else math.nan for values in present]
