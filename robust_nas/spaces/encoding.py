"""Genotypes of a space as tuples of small integers: what sampled strategies draw, change and compare.

A node that takes all of its sources has one integer an edge, its operation. A node that keeps k of n has one integer
for the combination of sources, in the order of `itertools.combinations`, and k for the operations on them, sources
ascending. Nodes follow each other, cells in the order of the space's kinds. Every tuple within `sizes` is a genotype.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

from robust_nas.errors import ArchitectureError
from robust_nas.spaces.cell import CellArchitecture, Edge
from robust_nas.spaces.isomorphism import architecture_class, cell_class, simplifies
from robust_nas.spaces.space import CellSpace, Size

Code = tuple[int, ...]


class Place(NamedTuple):
    """A node of a kind of cell: where its integers begin, and the combinations of sources that it may keep."""

    kind: str
    node: int
    start: int
    combinations: tuple[tuple[int, ...], ...]  # one where the node takes all of its sources

    @property
    def kept(self) -> int:
        """Return the number of edges into the node."""
        return len(self.combinations[0])

    @property
    def first(self) -> int:
        """Return where the operations begin."""
        return self.start + (len(self.combinations) > 1)

    @property
    def end(self) -> int:
        """Return where the next node begins."""
        return self.first + self.kept


class Encoding:
    """The codes of a cell space, draws and changes of them, and the architectures that they mean."""

    def __init__(self, space: CellSpace) -> None:
        self.space = space
        self.places = _places(space)
        self._operations = {name: number for number, name in enumerate(space.operations)}
        sizes: list[int] = []
        for place in self.places:
            choices = len(place.combinations)
            sizes += [*([choices] if choices > 1 else []), *[len(space.operations)] * place.kept]
        self.sizes = tuple(sizes)  # how many values each integer of a code has
        self._sizes = np.array(sizes)
        self._edges = [
            (place, position)
            for place in self.places
            for position in range(place.first, place.end)
            if len(space.operations) > 1
        ]
        self._kept = [
            (place, i) for place in self.places for i in range(place.kept) if len(place.combinations) > 1
        ]
        nodes = space.nodes
        cells = [self.places[number : number + nodes] for number in range(0, len(self.places), nodes)]
        self._spans = {cell[0].kind: (cell[0].start, cell[-1].end) for cell in cells}
        self._classes: dict[tuple[str, Code], str] = {}
        self._keys: dict[Code, str] = {}

    def sample(self, rng: np.random.Generator) -> Code:
        """Return a code drawn uniformly: combinations of sources and operations are equally likely."""
        return tuple(rng.integers(self._sizes).tolist())

    def neighbours(self, code: Code) -> list[Code]:
        """Return every code that differs in one choice: an operation, or the source of one edge."""
        found = []
        operations = len(self.space.operations)
        for _, position in self._edges:
            head, tail = code[:position], code[position + 1 :]
            found += [(*head, value, *tail) for value in range(operations) if value != code[position]]
        for place, index in self._kept:
            found += [self._with_source(code, place, index, source) for source in self._free(code, place)]
        return found

    def mutate(self, code: Code, rng: np.random.Generator) -> Code:
        """Return a code with one choice drawn again among the others.

        Half of the changes are of an operation, half of a source, where both can change. A space of one genotype gives
        the code itself.
        """
        if self._kept and (not self._edges or rng.integers(2)):
            place, index = self._kept[rng.integers(len(self._kept))]
            free = self._free(code, place)
            return self._with_source(code, place, index, free[rng.integers(len(free))])
        if not self._edges:
            return code
        _, position = self._edges[rng.integers(len(self._edges))]
        value = int(rng.integers(len(self.space.operations) - 1))
        value += value >= code[position]
        return (*code[:position], value, *code[position + 1 :])

    def decode(self, code: Code, name: str | None = None, size: Size | None = None) -> CellArchitecture:
        """Return the architecture of a code, by default at the space's final size."""
        cells: dict[str, list[list[Edge]]] = {kind: [] for kind in self.space.kinds}
        for place in self.places:
            cells[place.kind].append([Edge(*edge) for edge in self._edges_of(code, place)])
        return self.space.architecture(name or f"{self.space.name}-{'-'.join(map(str, code))}", cells, size)

    def encode(self, architecture: CellArchitecture) -> Code:
        """Return the code of an architecture's genotype. Raises `ArchitectureError` for one of another space."""
        problem = self.space.mismatch(architecture)
        if problem is not None:
            raise ArchitectureError(f"{architecture.name} is not of the space {self.space.name}: {problem}")
        code: list[int] = []
        for place in self.places:
            edges = sorted(architecture.cell(place.kind).nodes[place.node], key=lambda edge: edge.source)
            if len(place.combinations) > 1:
                code.append(place.combinations.index(tuple(edge.source for edge in edges)))
            code += [self._operations[edge.operation] for edge in edges]
        return tuple(code)

    def sources(self, code: Code, place: Place) -> tuple[int, ...]:
        """Return the sources of a node, ascending."""
        return place.combinations[code[place.start] if len(place.combinations) > 1 else 0]

    def check(self, values: object) -> Code:
        """Return values as a code. Raises `ValueError` for what is none of this space."""
        if not isinstance(values, list | tuple) or len(values) != len(self.sizes):
            raise ValueError(f"got {str(values)[:100]}; a code of {len(self.sizes)} integers is needed")
        for place, (value, size) in enumerate(zip(values, self.sizes, strict=True)):
            if type(value) is not int or not 0 <= value < size:
                raise ValueError(f"integer {place} of a code: got {str(value)[:100]}; allowed: 0..{size - 1}")
        return tuple(values)

    def key(self, code: Code) -> str:
        """Return the isomorphism class: codes of one network have one key."""
        if code not in self._keys:
            classes = {}
            for kind, (start, end) in self._spans.items():
                own = code[start:end]
                if (kind, own) not in self._classes:
                    self._classes[kind, own] = self._cell_class(kind, code)
                classes[kind] = self._classes[kind, own]
            self._keys[code] = architecture_class(classes)
        return self._keys[code]

    def _cell_class(self, kind: str, code: Code) -> str:
        space = self.space
        nodes = [self._edges_of(code, place) for place in self.places if place.kind == kind]
        return cell_class(
            nodes,
            inputs=space.topology.inputs,
            concat=space.output,
            simplify=simplifies(
                space.topology.aggregation, len(space.output), kind in space.layout.reduction_cells
            ),
        )

    def _edges_of(self, code: Code, place: Place) -> list[tuple[str, int]]:
        """Return (operation, source) of every edge into a node, sources ascending."""
        names = [self.space.operations[value] for value in code[place.first : place.end]]
        return list(zip(names, self.sources(code, place), strict=True))

    def _free(self, code: Code, place: Place) -> list[int]:
        """Return the sources that a node may take and does not."""
        used = self.sources(code, place)
        return [source for source in self.space.sources_of(place.node) if source not in used]

    def _with_source(self, code: Code, place: Place, index: int, source: int) -> Code:
        """Return the code in which an edge, with its operation, comes from another source."""
        edges = list(zip(self.sources(code, place), code[place.first : place.end], strict=True))
        edges[index] = (source, edges[index][1])
        edges.sort()
        combination = place.combinations.index(tuple(edge[0] for edge in edges))
        return (*code[: place.start], combination, *(edge[1] for edge in edges), *code[place.end :])


def _places(space: CellSpace) -> list[Place]:
    found: list[Place] = []
    for kind in space.kinds:
        for node in range(space.nodes):
            start = found[-1].end if found else 0
            chosen = tuple(combinations(space.sources_of(node), space.kept(node)))
            found.append(Place(kind, node, start, chosen))
    return found
