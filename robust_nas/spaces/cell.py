"""Cell networks: a stack of cells by a layout, with one genotype for every kind of cell.

Nodes of a cell are numbered with the cell's inputs first. With two inputs, sources 0 and 1 are the outputs of the cells
before and 2, 3, ... the nodes; with one, source 0 is the output of the cell before and 1, 2, ... the nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeGuard

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from robust_nas.config import Count, CountOrZero, Options, json_copy, to_dict
from robust_nas.errors import ArchitectureError
from robust_nas.operations import ACTIVATIONS, OPERATIONS, ActivationName, OperationName
from robust_nas.operations.cost import (
    Cost,
    Part,
    batch_norm,
    convolution,
    factorized_reduce,
    linear,
    pointwise,
    total,
)
from robust_nas.spaces.architecture import Architecture, InputShape, Json, by_name, digest, short_code
from robust_nas.spaces.layout import CellPlace, Kind, Layout
from robust_nas.spaces.topology import Aggregation, Inputs

_SIZE = re.compile(r"\.c[0-9]+\.ch[0-9]+(\.f[0-9-]+)?(\.h[0-9a-f]{8})?$")


class Edge(NamedTuple):
    """An operation on the output of a source node."""

    operation: OperationName
    source: CountOrZero


class Cell(Options):
    """One cell of a genotype: the edges into every node, and the nodes that form the output, concatenated."""

    kind: Kind  # of the cell, by which the layout places it
    inputs: Inputs = 2  # cells before it whose outputs it sees
    aggregation: Aggregation = "sum"  # of the edges into a node
    # edges into every node
    nodes: tuple[Annotated[tuple[Edge, ...], Field(min_length=1)], ...] = Field(min_length=1)
    concat: Annotated[tuple[CountOrZero, ...], Field(min_length=1)]  # nodes that form the output

    @model_validator(mode="after")
    def _acyclic_and_known(self) -> Self:
        for number, node in enumerate(self.nodes):
            for edge in node:
                if edge.source >= number + self.inputs:
                    raise ValueError(
                        f"node {number}: source {edge.source} is not before it; "
                        f"allowed: 0..{number + self.inputs - 1}"
                    )
        first, last = self.inputs, len(self.nodes) + self.inputs - 1
        if len(set(self.concat)) < len(self.concat) or not all(
            first <= index <= last for index in self.concat
        ):
            raise ValueError(f"concat {list(self.concat)} must be distinct nodes, allowed: {first}..{last}")
        return self

    @model_serializer(mode="wrap")
    def _without_the_usual_topology(self, handler: SerializerFunctionWrapHandler) -> Json:
        tree: Json = handler(self)
        if (self.inputs, self.aggregation) == (2, "sum"):  # as in files from before there was a choice
            return {key: value for key, value in tree.items() if key not in ("inputs", "aggregation")}
        return tree

    def operations(self) -> list[str]:
        """Return the names of the operations of all edges, node by node."""
        return [edge.operation for node in self.nodes for edge in node]


class Activated(NamedTuple):
    """A place of an activation: its stage, from 1, and its map."""

    stage: int
    channels: int
    pixels: int


class CellArchitecture(Architecture):
    """A stack of cells: its genotype, its layout, and its size."""

    called: ClassVar[str] = "a cell network"
    network: ClassVar[str] = "robust_nas.nets.network:CellNetwork"
    skeleton: ClassVar[str] = "robust_nas.nets.network:Skeleton"  # what surrounds the cells
    has_cells: ClassVar[bool] = True
    supports_auxiliary_head: ClassVar[bool] = True
    supports_drop_path: ClassVar[bool] = True
    supports_mixing: ClassVar[bool] = True

    type: Literal["cell"] = "cell"
    cells: Count  # depth: cells of the stack
    channels: Count  # width: channels of a node in the first stage, by its filters
    layout: Layout  # places of cells, reductions and filters
    genotype: tuple[Cell, ...] = Field(min_length=1)  # a cell of each kind
    activation: ActivationName = "relu"  # before the convolutions; the auxiliary head keeps ReLU

    @classmethod
    def refuse(cls, layout: Layout, inputs: int, outputs: int) -> None:
        """Raise `ValueError` for a layout, or numbers of cell inputs and output nodes, that the family cannot have."""
        given, wanted = len(layout.reduction_cells), len(layout.stages) - 1
        if given != wanted:
            raise ValueError(f"layout.reduction_cells has {given} entries; {wanted + 1} stages need {wanted}")

    @classmethod
    def skeleton_class(cls) -> Any:
        """Return the class of what surrounds the cells, in a supernet and in a network; this imports torch."""
        return by_name(cls.skeleton)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        kinds = [cell.kind for cell in self.genotype]
        if len(set(kinds)) < len(kinds) or set(kinds) != set(self.layout.kinds):
            raise ValueError(
                f"genotype has cells {', '.join(kinds)}; the layout needs {', '.join(self.layout.kinds)}, once each"
            )
        for cell in self.genotype:
            self.refuse(self.layout, cell.inputs, len(cell.concat))
        self.places()
        return self

    @model_serializer(mode="wrap")
    def _without_the_usual_activation(self, handler: SerializerFunctionWrapHandler) -> Json:
        tree: Json = handler(self)  # without it as in files from before there was a choice
        return {key: value for key, value in tree.items() if (key, value) != ("activation", "relu")}

    def cell(self, kind: str) -> Cell:
        """Return the cell of a kind."""
        return next(cell for cell in self.genotype if cell.kind == kind)

    def places(self) -> list[CellPlace]:
        """Return every cell of the stack from the input to the output."""
        concat = {cell.kind: len(cell.concat) for cell in self.genotype}
        try:
            return list(self.layout.places(self.cells, self.channels, concat))
        except ArchitectureError as error:
            raise ValueError(str(error)) from None

    def resized(self, cells: int | None = None, channels: int | None = None) -> Self:
        """Return the same genotype at another depth or width. Raises `ArchitectureError` for an impossible size."""
        size = {"cells": cells, "channels": channels}
        return self.with_options(**{key: value for key, value in size.items() if value is not None})

    def describe(self) -> str:
        """Return the size in words."""
        return f"{self.cells} cells, {self.channels} channels"

    def arguments(self, input_shape: InputShape) -> Json:
        """Return every cell as the plain numbers of a `CellPlan`."""
        chosen = {} if self.activation == "relu" else {"activation": self.activation}
        return {"plans": [_plan(place, self.cell(place.kind)) for place in self.places()], **chosen}

    def operations_used(self) -> frozenset[str]:
        """Return the operations of the genotype."""
        return frozenset(operation for cell in self.genotype for operation in cell.operations())

    def activations_used(self) -> frozenset[str]:
        """Return its activation."""
        return frozenset([self.activation])

    def activation_places(self) -> set[tuple[int, int]]:
        """Return (stage, channels) of all activations: the stage is that of the cell."""
        return {(one.stage, one.channels) for one in self._activations((1, 1))}

    def auxiliary_head(self, input_shape: InputShape) -> tuple[int, int, int, int]:
        """Return the last reduction cell (the last cell where none reduces) and the shape of its output.

        Raises `ArchitectureError` where the feature maps are smaller than 4x4.
        """
        places = self.places()
        index = max((i for i, place in enumerate(places) if place.reduction), default=len(places) - 1)
        halvings = sum(place.reduction for place in places)
        height, width = (-(-side // 2**halvings) for side in input_shape[1:])
        if min(height, width) < 4:
            raise ArchitectureError(
                f"auxiliary head: needs feature maps of at least 4x4 behind cell {index}, got {height}x{width} "
                f"from an input of {input_shape[1]}x{input_shape[2]}; train with auxiliary_weight 0"
            )
        return index, places[index].c * len(self.cell(places[index].kind).concat), height, width

    @property
    def total_depth(self) -> int:
        """Return the number of cells."""
        return self.cells

    @property
    def total_width(self) -> int:
        """Return the channels that the filters of all stages are relative to."""
        return self.channels

    def factors(self) -> dict[str, float | str]:
        """Return depth, width, and which genotype it is."""
        return {
            "depth": self.cells,
            "width": self.channels,
            "genotype": self.genotype_id,
            "activation": self.activation,
        }

    @property
    def genotype_id(self) -> str:
        """Return eight hex digits of the cells: architectures of several sizes share them."""
        cells = [to_dict(cell) for cell in sorted(self.genotype, key=lambda cell: cell.kind)]
        return digest(cells, separators=(", ", ": "))

    def drawing(self) -> tuple[dict[str, list[list[tuple[str, int]]]], dict[str, tuple[int, ...]], int]:
        """Return what `figures.draw_cells` draws: the nodes and the output states of every kind, and the inputs."""
        cells = {
            cell.kind: [[(edge.operation, edge.source) for edge in node] for node in cell.nodes]
            for cell in self.genotype
        }
        return cells, {cell.kind: cell.concat for cell in self.genotype}, self.genotype[0].inputs

    def content_name(self, shipped: Mapping[str, Json]) -> str:
        """Return the name before a resizing, the size, a hash of all that neither says, and another activation."""
        chosen = self.activation_code
        stem = _SIZE.sub("", self.name.removesuffix(chosen))[:120]
        tree = self.nameless()
        tree.pop("activation", None)
        filters = tree["layout"].pop("filters")
        del tree["cells"], tree["channels"]
        size = f".c{self.cells}.ch{self.channels}"
        known = shipped.get(stem)
        if known is not None and known["type"] == self.type:
            known = json_copy(known)
            usual = known["layout"].pop("filters")
            del known["cells"], known["channels"]
            if known == tree:
                return stem + size + ("" if filters == usual else f".f{'-'.join(map(str, filters))}") + chosen
        listed = f".f{'-'.join(map(str, filters))}"
        return stem + size + (listed if len(listed) <= 40 else "") + f".h{digest([tree, filters])}" + chosen

    @property
    def activation_code(self) -> str:
        """Return what names end with where the activation is not ReLU: `.sparta`."""
        return "" if self.activation == "relu" else f".{short_code(self.activation)}"

    def parts(self, input_shape: InputShape, classes: int) -> Iterator[Part]:
        """Yield stem, stages and head; the stages are those of the layout, a reduction begins the next one.

        Cell by cell with the resolutions of its inputs.
        """
        channels, height, width = input_shape
        stem = self.layout.stem * self.channels
        yield Part("stem", convolution(channels, stem, 3, height * width).plus(batch_norm(stem, True)))
        stages = [self.shared_cost(number) for number in range(1, len(self.layout.stages) + 1)]
        activation = ACTIVATIONS.get(self.activation)
        for one in self._activations((height, width)):
            stages[one.stage - 1] = stages[one.stage - 1].plus(activation.cost(one.channels, one.pixels))
        size = (height, width)
        for place in self.places():
            cell = self.cell(place.kind)
            cost, size = self.adapters_cost(place, cell.inputs, size)
            costs = [cost]
            if place.reduction:
                size = halved(size)
            for node in cell.nodes:
                for operation, source in node:
                    stride = 2 if place.reduction and source < cell.inputs else 1
                    costs.append(OPERATIONS.get(operation).cost(place.c, stride, size[0] * size[1], True))
            stages[place.stage] = total([stages[place.stage], *costs])
        for number, cost in enumerate(stages, 1):
            yield Part(f"stage {number}", cost)
        yield Part("head", self.head_cost(place.c * len(cell.concat), classes))

    def _activations(self, size: tuple[int, int]) -> Iterator[Activated]:
        """Yield every activation of the stages, for images of this height and width."""
        earlier = size  # of the cell before the last one
        for place in self.places():
            cell, stage = self.cell(place.kind), place.stage + 1
            adapted, inputs = self.adapter_activations(place, cell.inputs, size, earlier)
            for channels, (height, width) in adapted:
                yield Activated(stage, channels, height * width)
            outputs = halved(inputs) if place.reduction else inputs
            for node in cell.nodes:
                for operation, source in node:
                    seen = inputs if source < cell.inputs else outputs
                    stride = 2 if place.reduction and source < cell.inputs else 1
                    before, after = OPERATIONS.get(operation).activations(stride)
                    for height, width in (*[seen] * before, *[outputs] * after):
                        yield Activated(stage, place.c, height * width)
            earlier, size = inputs, outputs
        for channels in self.head_activations(place.c * len(cell.concat)):
            yield Activated(stage, channels, size[0] * size[1])

    def adapter_activations(
        self, place: CellPlace, inputs: int, size: tuple[int, int], earlier: tuple[int, int]
    ) -> tuple[list[tuple[int, tuple[int, int]]], tuple[int, int]]:
        """Return channels and map of the activations in a cell's adapters, and height and width behind these.

        `size` is the last input's, `earlier` that of the input before it.
        """
        first = [(place.c_pp, earlier if place.reduction_prev else size)] if inputs == 2 else []
        return [*first, (place.c_p, size)], size

    def head_activations(self, channels: int) -> list[int]:
        """Return the channels of the activations behind the last cell; they count to the last stage."""
        return []

    def adapters_cost(
        self, place: CellPlace, inputs: int, size: tuple[int, int]
    ) -> tuple[Cost, tuple[int, int]]:
        """Return what adapting a cell's inputs costs, and height and width behind it; `size` is the last input's."""
        pixels = size[0] * size[1]
        adapt = factorized_reduce if place.reduction_prev else pointwise
        costs = [adapt(place.c_pp, place.c, pixels, True)] if inputs == 2 else []
        return total([*costs, pointwise(place.c_p, place.c, pixels, True)]), size

    def head_cost(self, channels: int, classes: int) -> Cost:
        """Return what follows the last cell."""
        return linear(channels, classes)


def has_cells(architecture: Architecture) -> TypeGuard[CellArchitecture]:
    """Return whether an architecture is made of a genotype: its attribute `has_cells`, for type checkers."""
    return architecture.has_cells


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width behind a stride of 2."""
    return -(-size[0] // 2), -(-size[1] // 2)


def _plan(place: CellPlace, cell: Cell) -> tuple[Any, ...]:
    nodes = tuple(tuple((edge.operation, edge.source) for edge in node) for node in cell.nodes)
    numbers = (place.c_pp, place.c_p, place.c, place.reduction, place.reduction_prev, nodes, cell.concat)
    topology = (cell.inputs, cell.aggregation)
    return numbers if topology == (2, "sum") else (*numbers, *topology)
