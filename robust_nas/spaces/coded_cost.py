"""MACs and parameters of codes, by a table that `count` fills: exact, and a thousand times faster than counting each.

The cost of a network is a sum over its edges: an edge costs the same whatever the other edges are. So one edge of a
reference network is replaced at a time, once for every (cell, node, source, operation), and the difference is kept.
"""

from __future__ import annotations

from robust_nas.operations.cost import Cost
from robust_nas.spaces.counting import count
from robust_nas.spaces.encoding import Code, Encoding, Place
from robust_nas.spaces.space import Size


class CodedCost:
    """Costs of the networks of a space at one size, for images of one shape (C, H, W)."""

    def __init__(
        self,
        encoding: Encoding,
        size: Size,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        classes: int = 10,
    ) -> None:
        self.encoding, self.size, self.input_shape, self.classes = encoding, size, input_shape, classes
        self._reference = (0,) * len(encoding.sizes)
        self._base = self._count(self._reference)
        self._differences: dict[tuple[int, int, int], Cost] = {}  # by place, source and operation
        self._known: dict[Code, Cost] = {}

    def __call__(self, code: Code) -> Cost:
        """Return parameters and MACs per image."""
        if code not in self._known:
            params, macs = self._base
            for number, place in enumerate(self.encoding.places):
                sources = self.encoding.sources(code, place)
                for source, operation in zip(sources, code[place.first : place.end], strict=True):
                    key = (number, source, operation)
                    if key not in self._differences:
                        self._differences[key] = self._difference(place, source, operation)
                    difference = self._differences[key]
                    params, macs = params + difference.params, macs + difference.macs
            self._known[code] = Cost(params, macs)
        return self._known[code]

    def _difference(self, place: Place, source: int, operation: int) -> Cost:
        """Return how much more an edge costs than the one that it takes the place of in the reference network.

        The reference's nodes keep the first sources, which are inputs of the cell, and all inputs cost the same: it
        does not matter which of its edges another source replaces.
        """
        old = source if source in place.combinations[0] else place.combinations[0][0]
        return _minus(self._with_edge(place, old, source, operation), self._base)

    def _with_edge(self, place: Place, old: int, source: int, operation: int) -> Cost:
        """Return the cost of the reference with another edge in the place of that from `old`."""
        edges = dict.fromkeys(place.combinations[0], 0)
        del edges[old]
        edges[source] = operation
        sources = tuple(sorted(edges))
        chosen = [place.combinations.index(sources)] if len(place.combinations) > 1 else []
        own = (*chosen, *(edges[each] for each in sources))
        return self._count((*self._reference[: place.start], *own, *self._reference[place.end :]))

    def _count(self, code: Code) -> Cost:
        architecture = self.encoding.decode(code, "coded", self.size)
        return count(architecture, self.input_shape, self.classes)


def _minus(a: Cost, b: Cost) -> Cost:
    return Cost(a.params - b.params, a.macs - b.macs)
