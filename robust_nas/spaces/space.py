"""A cell search space: what may be searched, and at which sizes. Data that a user edits, one YAML file each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from robust_nas.config import Count, Options, check, json_copy, merge, read_yaml
from robust_nas.config_paths import seen_from_file
from robust_nas.errors import ArchitectureError, CodeRefusedError, ConfigError, SearchSpaceError
from robust_nas.operations import OperationName
from robust_nas.spaces.cell import Cell, CellArchitecture, Edge
from robust_nas.spaces.families import FAMILIES
from robust_nas.spaces.files import is_shipped, shipped
from robust_nas.spaces.layout import CellPlace, Layout, Name
from robust_nas.spaces.topology import Topology

CellFamily = type[CellArchitecture]


def _with_cells(family: str) -> str:
    """Return the full name of a family with cells."""
    try:
        found = FAMILIES.get(family)
    except CodeRefusedError:
        raise
    except ConfigError as error:
        raise ValueError(str(error)) from None
    if not found.has_cells:
        raise ValueError(f"{found.called} has no cells to search")
    return str(found.model_fields["type"].default)


class Size(Options):
    """Depth and width of a stack."""

    cells: Count  # depth: cells of the stack
    channels: Count  # width: channels of a node in the first stage, by its filters


class CellSpace(Options):
    """The space of genotypes: nodes, operations, topology, layout; and the sizes of supernet and final network.

    `type` names the family of the architectures, which brings what surrounds the cells.
    """

    schema_version: Literal[1] = 1  # of the file's format
    type: Annotated[str, AfterValidator(_with_cells)] = "cell"  # cell space
    name: Name  # of the space
    source: str = ""  # where the space comes from
    nodes: Annotated[Count, Field(le=64)]  # of a cell
    edges_per_node: Count | Literal["all"] = 2  # kept per node when an architecture is derived
    operations: tuple[OperationName, ...] = Field(min_length=1)  # of an edge
    topology: Topology = Topology()  # inputs, edges and output of a cell
    layout: Layout  # places of cells, reductions and filters
    search: Size  # size of the supernet
    network: Size  # size of the final network

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.operations)) < len(self.operations):
            raise ValueError(f"operations names one twice: {', '.join(self.operations)}")
        least = min(len(self.sources_of(node)) for node in range(self.nodes))
        if self.edges_per_node != "all" and self.edges_per_node > least:
            raise ValueError(
                f"edges_per_node is {self.edges_per_node}; a node has only {least} sources, so write {least} or all"
            )
        self.family.refuse(self.layout, self.topology.inputs, len(self.output))
        for size in (self.search, self.network):
            try:
                self.places(size)
            except ArchitectureError as error:
                raise ValueError(str(error)) from None
        return self

    @model_serializer(mode="wrap")
    def _without_the_usual_topology(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = handler(self)
        if self.topology == Topology():  # as in files from before there was a choice
            tree.pop("topology", None)
        return tree

    @property
    def family(self) -> CellFamily:
        """Return the class of the architectures."""
        return cast(CellFamily, FAMILIES.get(self.type))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return every kind of cell once, in the order of first appearance by depth."""
        return self.layout.kinds

    @property
    def edges(self) -> list[tuple[int, int]]:
        """Return (node, source) of every edge of a cell of the supernet, node by node: 14 edges in DARTS's cell."""
        return [(node, source) for node in range(self.nodes) for source in self.sources_of(node)]

    @property
    def output(self) -> tuple[int, ...]:
        """Return the states that form a cell's output, by number."""
        return self.topology.output_states(self.nodes)

    def sources_of(self, node: int) -> range:
        """Return the states that a node may take, by number: the inputs first, then the nodes."""
        return self.topology.sources_of(node)

    def kept(self, node: int) -> int:
        """Return the number of edges that a node of a derived architecture has."""
        return len(self.sources_of(node)) if self.edges_per_node == "all" else self.edges_per_node

    def places(self, size: Size) -> list[CellPlace]:
        """Return every cell of a stack from the input to the output. Raises `ArchitectureError`."""
        outputs = dict.fromkeys(self.kinds, len(self.output))
        return list(self.layout.places(size.cells, size.channels, outputs))

    def architecture(
        self, name: str, genotype: Mapping[str, list[list[Edge]]], size: Size | None = None
    ) -> CellArchitecture:
        """Return the architecture with these nodes per kind, by default at the space's final size."""
        size = size or self.network
        return self.family(
            name=name,
            cells=size.cells,
            channels=size.channels,
            layout=self.layout,
            genotype=tuple(
                Cell(
                    kind=kind,
                    inputs=self.topology.inputs,
                    aggregation=self.topology.aggregation,
                    nodes=tuple(tuple(node) for node in genotype[kind]),
                    concat=self.output,
                )
                for kind in self.kinds
            ),
        )

    def mismatch(self, architecture: CellArchitecture) -> str | None:
        """Return why an architecture is not of this space, whatever its size; None where it is."""
        if architecture.type != self.type:
            return f"it is {architecture.called}"
        if architecture.layout != self.layout:
            return "its layout is another"
        usual = type(architecture).model_fields["activation"].default
        if architecture.activation != usual:
            return f"its activation is {architecture.activation}; a supernet has {usual}"
        for cell in architecture.genotype:
            if len(cell.nodes) != self.nodes or cell.concat != self.output:
                return f"its {cell.kind} cell has {len(cell.nodes)} nodes, of which {list(cell.concat)} are the output"
            if (cell.inputs, cell.aggregation) != (self.topology.inputs, self.topology.aggregation):
                return f"its {cell.kind} cell has {cell.inputs} inputs and nodes that take the {cell.aggregation}"
            unknown = set(cell.operations()) - set(self.operations)
            if unknown:
                return f"its {cell.kind} cell has operation {min(unknown)!r}, not of {', '.join(self.operations)}"
            for number, node in enumerate(cell.nodes):
                sources = [edge.source for edge in node]
                allowed = set(self.sources_of(number))
                if len(sources) != self.kept(number) or len(set(sources) & allowed) != len(sources):
                    return (
                        f"node {number} of its {cell.kind} cell has the sources {sources}; "
                        f"{self.kept(number)} distinct ones of {sorted(allowed)} are needed"
                    )
        return None


def load_space(name_or_path: str | Path, changes: Mapping[str, Any] | None = None) -> CellSpace:
    """Return a shipped space (`dsara`, `darts`, `nas-bench-201`) or one from a YAML file, with `changes` merged in.

    Raises `SearchSpaceError` that names the rule which the space breaks.
    """
    path = shipped("", name_or_path, SearchSpaceError)
    file = None if is_shipped("", str(name_or_path)) else path
    tree = merge(seen_from_file(read_yaml(path), file), json_copy(changes or {}))
    source = f"{path} with space.changes" if changes else str(path)
    return check(CellSpace, tree, source, SearchSpaceError)
