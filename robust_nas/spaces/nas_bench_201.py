"""NAS-Bench-201 (Dong and Yang, ICLR 2020): a cell of one input and its skeleton of residual reduction blocks.

    stem:       conv3x3, batch norm
    stages:     cells; between two stages a block halves the resolution and takes the next stage's channels:
                conv3x3(relu) of stride 2, conv3x3(relu), each with batch norm, plus conv1x1 of the 2x2 average
    head:       batch norm, relu, mean over pixels, linear

`cells` counts all cells: the benchmark's "N = 5 cells a stage" are 15. Its strings list `operation~source` for every
node, such as `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|`.

A cell of the benchmark has a code, the operations of its six edges as digits in the order of `OPERATIONS`, such as
`301420`; and an index, the code as a number of base 5 (0..15624; our choice). The benchmark's ids follow no formula:
they are data of a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from robust_nas.config import check
from robust_nas.errors import ArchitectureError
from robust_nas.operations.cost import Cost, batch_norm, convolution, linear, total
from robust_nas.spaces.architecture import Json
from robust_nas.spaces.cell import CellArchitecture, halved
from robust_nas.spaces.layout import CellPlace, Layout

OPERATIONS = (
    "none",
    "skip_connect",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "avg_pool_3x3",
)  # in the benchmark's order
SOURCES = ((0,), (0, 1), (0, 1, 2))  # of every node
LAYOUT = Layout(stages=("cell",) * 3, reductions=("1/3", "2/3"), filters=(1, 2, 4), stem=1)
_NODE = r"(?:\|[a-z][a-z0-9_]*~[0-9]{1,2})+\|"
CODE = re.compile(r"[0-4]{6}")
CELLS = len(OPERATIONS) ** 6
STRING = re.compile(rf"{_NODE}(?:\+{_NODE})*")


def code_of(text: str) -> str:
    """Return the code of a string of the benchmark. Raises `ArchitectureError` for a text that is none."""
    found = re.findall(r"[|+]([a-z][a-z0-9_]*)~", f"+{text}")
    known = len(found) == 6 and set(found) <= set(OPERATIONS)
    code = "".join(str(OPERATIONS.index(operation)) for operation in found) if known else ""
    if not known or string_of(code) != text:
        raise ArchitectureError(
            f"got {text[:200]!r}; a string of NAS-Bench-201 is needed: six edges of {', '.join(OPERATIONS)}"
        )
    return code


def string_of(code: str) -> str:
    """Return the string of the benchmark with this code. Raises `ArchitectureError` for a text that is no code."""
    return "+".join(
        "|" + "".join(f"{operation}~{source}|" for operation, source in node) for node in nodes_of(code)
    )


def nodes_of(code: str) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Return (operation, source) of the edges into every node of the cell with this code. Errors as `string_of`."""
    if CODE.fullmatch(code) is None:
        raise ArchitectureError(f"got code {code[:200]!r}; six digits 0..4 are needed, one an edge")
    digits = iter(code)
    return tuple(tuple((OPERATIONS[int(next(digits))], source) for source in node) for node in SOURCES)


def code_at(index: int) -> str:
    """Return the code of the cell with this index. Raises `ArchitectureError` for another number than 0..15624."""
    if not 0 <= index < CELLS:
        raise ArchitectureError(f"got index {index}; 0..{CELLS - 1} are needed")
    return "".join(str(index // 5**place % 5) for place in reversed(range(6)))


class NASBench201Architecture(CellArchitecture):
    """A network of NAS-Bench-201: the genotype of its one cell in its skeleton, 15 cells and 16 channels there."""

    called: ClassVar[str] = "a network of NAS-Bench-201"
    network: ClassVar[str] = "robust_nas.nets.nas_bench_201:NASBench201Network"
    skeleton: ClassVar[str] = "robust_nas.nets.nas_bench_201:NASBench201Skeleton"
    named_as: ClassVar[str] = "a string of NAS-Bench-201, such as |nor_conv_3x3~0|+|none~0|skip_connect~1|"
    supports_auxiliary_head: ClassVar[bool] = False

    type: Literal["nas-bench-201"] = "nas-bench-201"  # type: ignore[assignment] # another family than its base
    layout: Layout = LAYOUT  # places of cells, reductions and filters

    @classmethod
    def refuse(cls, layout: Layout, inputs: int, outputs: int) -> None:
        """Raise `ValueError` for what the skeleton cannot hold: its cells keep the channels of their one input."""
        if layout.reduction_cells:
            raise ValueError(
                f"layout.reduction_cells: got {', '.join(layout.reduction_cells)}; "
                f"residual blocks reduce in {cls.called}: leave it out"
            )
        if (inputs, outputs) != (1, 1):
            raise ValueError(
                f"a cell of {inputs} inputs and {outputs} output nodes; in {cls.called} it has one of each"
            )
        if layout.stem != layout.filters[0]:
            raise ValueError(
                f"layout.stem: got {layout.stem}; {cls.called} needs the first stage's {layout.filters[0]}"
            )

    @classmethod
    def named(cls, text: str) -> Self | None:
        """Return the network of a string of the benchmark at its size, None for a text of another form."""
        return cls.from_string(text) if STRING.fullmatch(text) else None

    @classmethod
    def from_string(cls, text: str, cells: int = 15, channels: int = 16) -> Self:
        """Return the network of a string of the benchmark. Raises `ArchitectureError`."""
        if STRING.fullmatch(text) is None:
            raise ArchitectureError(f"got {text[:200]!r}; {cls.named_as} is needed")
        nodes = []
        for node in text.split("+"):
            pairs = (edge.split("~") for edge in node.strip("|").split("|"))
            nodes.append([(operation, int(source)) for operation, source in pairs])
        cell = {"kind": "cell", "inputs": 1, "nodes": nodes, "concat": [len(nodes)]}
        tree = {"name": "nb201", "cells": cells, "channels": channels, "genotype": [cell]}
        found = check(cls, tree, text[:200], ArchitectureError)
        return found.model_copy(update={"name": found.content_name({})})

    @property
    def string(self) -> str:
        """Return the cell as the benchmark writes it."""
        nodes = self.genotype[0].nodes
        return "+".join(
            "|" + "".join(f"{operation}~{source}|" for operation, source in node) for node in nodes
        )

    @property
    def code(self) -> str | None:
        """Return the code of the cell, None for one that is not the benchmark's. Its index is `int(code, 5)`."""
        cell = self.genotype[0]
        sources = tuple(tuple(edge.source for edge in node) for node in cell.nodes)
        form = (cell.kind, cell.aggregation, sources, cell.concat)
        if form != ("cell", "sum", SOURCES, (3,)) or not set(cell.operations()) <= set(OPERATIONS):
            return None
        return "".join(str(OPERATIONS.index(operation)) for operation in cell.operations())

    def content_name(self, shipped: Mapping[str, Json]) -> str:
        """Return the operations of the edges as digits in the benchmark's order, and the size: `nb201-333333.c15.ch16`.

        A cell that is not the benchmark's is named as other cells are.
        """
        code = self.code
        if code is None or self.layout != LAYOUT:
            return super().content_name(shipped)
        return f"nb201-{code}.c{self.cells}.ch{self.channels}{self.activation_code}"

    def adapters_cost(
        self, place: CellPlace, inputs: int, size: tuple[int, int]
    ) -> tuple[Cost, tuple[int, int]]:
        """Return the cost of the residual block before a stage, and height and width behind it."""
        if not place.reduction_prev:
            return Cost(0, 0), size
        size = halved(size)
        c_in, c_out, pixels = place.c_p, place.c, size[0] * size[1]
        convolutions = [convolution(c_in, c_out, 3, pixels), convolution(c_out, c_out, 3, pixels)]
        shortcut = convolution(c_in, c_out, 1, pixels)
        return total([*convolutions, shortcut, *[batch_norm(c_out, True)] * 2]), size

    def adapter_activations(
        self, place: CellPlace, inputs: int, size: tuple[int, int], earlier: tuple[int, int]
    ) -> tuple[list[tuple[int, tuple[int, int]]], tuple[int, int]]:
        """Return those of the residual block before a stage, and height and width behind it."""
        if not place.reduction_prev:
            return [], size
        return [(place.c_p, size), (place.c, halved(size))], halved(size)

    def head_activations(self, channels: int) -> list[int]:
        """Return the channels before the pooling."""
        return [channels]

    def head_cost(self, channels: int, classes: int) -> Cost:
        """Return the cost of batch norm and classifier."""
        return batch_norm(channels, True).plus(linear(channels, classes))
