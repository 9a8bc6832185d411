"""A cell search space: what may be searched, and at which sizes. Data that a user edits, one YAML file each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from robust_nas.config import Count, Options, check, json_copy, merge, read_yaml
from robust_nas.errors import ArchitectureError, SearchSpaceError
from robust_nas.operations import OperationName
from robust_nas.spaces.architecture import Cell, CellArchitecture, Edge
from robust_nas.spaces.files import shipped
from robust_nas.spaces.layout import Layout, Name


class Size(Options):
    """Depth and width of a stack."""

    cells: Count
    channels: Count


class CellSpace(Options):
    """The space of genotypes: nodes, operations, layout; and the sizes of supernet and final network."""

    schema_version: Literal[1] = 1
    type: Literal["cell"] = "cell"
    name: Name
    source: str = ""
    nodes: Annotated[Count, Field(le=64)]
    edges_per_node: Count = 2  # kept per node when an architecture is derived
    operations: tuple[OperationName, ...] = Field(min_length=1)
    layout: Layout
    search: Size
    network: Size

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.operations)) < len(self.operations):
            raise ValueError(f"operations names one twice: {', '.join(self.operations)}")
        if self.edges_per_node > 2:
            raise ValueError(
                f"edges_per_node is {self.edges_per_node}; the first node has only the two cell inputs"
            )
        for size in (self.search, self.network):
            concat = dict.fromkeys(self.layout.kinds, self.nodes)
            try:
                list(self.layout.places(size.cells, size.channels, concat))
            except ArchitectureError as error:
                raise ValueError(str(error)) from None
        return self

    @property
    def edges(self) -> list[tuple[int, int]]:
        """(node, source) of every edge of a cell of the supernet, node by node: 14 edges for four nodes."""
        return [(node, source) for node in range(self.nodes) for source in range(node + 2)]

    def architecture(
        self, name: str, genotype: Mapping[str, list[list[Edge]]], size: Size | None = None
    ) -> CellArchitecture:
        """The architecture with these nodes per kind, at the space's final size unless told otherwise."""
        size = size or self.network
        concat = tuple(range(2, self.nodes + 2))
        return CellArchitecture(
            name=name,
            cells=size.cells,
            channels=size.channels,
            layout=self.layout,
            genotype=tuple(
                Cell(kind=kind, nodes=tuple(tuple(node) for node in genotype[kind]), concat=concat)
                for kind in self.layout.kinds
            ),
        )


def load_space(name_or_path: str | Path, changes: Mapping[str, Any] | None = None) -> CellSpace:
    """A shipped space by name (`dsara`, `darts`) or one from a YAML file, with `changes` merged into it.

    Raises `SearchSpaceError` that names the rule which the space breaks.
    """
    path = shipped("", name_or_path, SearchSpaceError)
    tree = merge(read_yaml(path), json_copy(changes or {}))
    source = f"{path} with space.changes" if changes else str(path)
    return check(CellSpace, tree, source, SearchSpaceError)
