"""How cells are stacked: the kind of each, where resolution halves, how many filters each stage has.

A network of L cells is cut into stages; stage r + 1 begins at cell floor(fraction_r * L). That cell is a reduction cell
where the layout names kinds for them; where it names none, the family reduces between the stages by a block of its own.
Every other cell has the kind of its stage. A node of stage s has `channels * filters[s]` channels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from robust_nas.config import Count, Options, text_field
from robust_nas.errors import ArchitectureError

MAX_CELLS = 1000
MAX_FILTERS = 1 << 20
MAX_NAME = 200


def _proper_fraction(text: str) -> str:
    parts = re.fullmatch(r"([0-9]{1,2})/([0-9]{1,2})", text)
    if parts is None or not 0 < int(parts[1]) < int(parts[2]):
        raise ValueError("a fraction of the depth between 0 and 1 is needed, such as 1/3")
    return text


Name = Annotated[
    str,
    text_field(
        r"^[A-Za-z0-9][A-Za-z0-9._+-]*$",
        "letters, digits, '.', '_', '+' and '-' are taken, a letter or digit first",
        max_length=MAX_NAME,
    ),
]
Kind = Annotated[
    str,
    text_field(
        r"^[a-z][a-z0-9_]*$", "lower-case letters, digits and '_' are taken, a letter first", max_length=40
    ),
]
DepthFraction = Annotated[str, AfterValidator(_proper_fraction)]


class CellPlace(NamedTuple):
    """One cell of a stack: its kind, strides and channels (`c_pp`, `c_p` of its inputs, `c` of its nodes).

    `reduction_prev`: the resolution halves just before, in the previous cell or in a block between them.
    """

    kind: str
    stage: int
    reduction: bool
    reduction_prev: bool
    c_pp: int
    c_p: int
    c: int


class Layout(Options):
    """Placement of cell kinds by depth, places of the reductions, filters per stage, and the stem."""

    stages: tuple[Kind, ...] = Field(min_length=1)  # kind of the cells of each stage
    reduction_cells: tuple[
        Kind, ...
    ] = ()  # kind of each reduction cell; none: a block reduces between stages
    reductions: tuple[DepthFraction, ...] = ()  # where stages begin, as fractions of the depth
    filters: tuple[Count, ...] = Field(min_length=1)  # of a node per stage, relative to `channels`
    stem: Count = 3  # channels of the stem's 3x3 convolution, relative to `channels`

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        stages = len(self.stages)
        for name, given, wanted in (
            ("filters", len(self.filters), stages),
            ("reductions", len(self.reductions), stages - 1),
            ("reduction_cells", len(self.reduction_cells), stages - 1),
        ):
            if given != wanted and (name, given) != ("reduction_cells", 0):
                raise ValueError(f"{name} has {given} entries; {stages} stages need {wanted}")
        depths = [Fraction(text) for text in self.reductions]
        if any(b <= a for a, b in pairwise(depths)):
            raise ValueError("reductions must increase with depth")
        both = set(self.stages) & set(self.reduction_cells)
        if both:
            raise ValueError(
                f"kind {min(both)!r} is both a stage's cell and a reduction cell; they need two kinds"
            )
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every cell kind once, in the order of first appearance by depth."""
        ordered = [self.stages[0]]
        for number, stage in enumerate(self.stages[1:]):
            ordered += [*self.reduction_cells[number : number + 1], stage]
        return tuple(dict.fromkeys(ordered))

    def places(self, cells: int, channels: int, concat: dict[str, int]) -> Iterator[CellPlace]:
        """Every cell from the input to the output; `concat` gives the number of concatenated nodes per kind.

        Raises `ArchitectureError` when `cells` is too small for the reductions to stand apart, or a size is absurd.
        """
        if cells > MAX_CELLS:
            raise ArchitectureError(f"cells: got {cells}; at most {MAX_CELLS} are allowed")
        starts = [int(Fraction(text) * cells) for text in self.reductions]
        if cells < 1 or len(set(starts)) < len(starts):
            needed = next((n for n in range(1, MAX_CELLS + 1) if self._apart(n)), f"more than {MAX_CELLS}")
            raise ArchitectureError(
                f"cells: got {cells}; reductions at {', '.join(self.reductions)} need at least {needed} cells"
            )
        c_pp = c_p = self.stem * channels
        reduction_prev = False
        stage = 0
        for index in range(cells):
            begins = index in starts
            if begins:
                stage = starts.index(index) + 1
            reduction = begins and bool(self.reduction_cells)
            reduction_prev = reduction_prev or (begins and not reduction)
            kind = self.reduction_cells[stage - 1] if reduction else self.stages[stage]
            c = channels * self.filters[stage]
            if not (2 if reduction or reduction_prev else 1) <= c <= MAX_FILTERS:
                raise ArchitectureError(
                    f"channels: got {channels}, so a node of stage {stage} has {c} filters; "
                    f"allowed: 2..{MAX_FILTERS}, as a reduction halves them"
                )
            yield CellPlace(kind, stage, reduction, reduction_prev, c_pp, c_p, c)
            c_pp, c_p, reduction_prev = c_p, c * concat[kind], reduction

    def _apart(self, cells: int) -> bool:
        starts = [int(Fraction(text) * cells) for text in self.reductions]
        return len(set(starts)) == len(starts)
