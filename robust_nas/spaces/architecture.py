"""An architecture: the small, frozen, hashable value that a search returns and a network is built from.

It is a cell network (here), a residual network (`residual.py`) or an MLP (`mlp.py`), told apart by `type`. It is
complete (for cells: genotype, placement, filters, stem, number of cells, channels) and carries neither weights nor
recipe. Nodes of a cell are numbered with the two cell inputs first: sources 0 and 1 are the outputs of the cells
before, 2, 3, ... the nodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from robust_nas.config import (
    Count,
    CountOrZero,
    Options,
    check,
    existing_file,
    parse_yaml,
    read_yaml,
    to_yaml,
)
from robust_nas.errors import ArchitectureError
from robust_nas.operations import OperationName
from robust_nas.spaces.files import shipped
from robust_nas.spaces.layout import CellPlace, Kind, Layout, Name
from robust_nas.spaces.mlp import MLPArchitecture
from robust_nas.spaces.residual import WIDE_RESNETS, ResidualArchitecture, wide_resnet


class Edge(NamedTuple):
    """An operation on the output of a source node."""

    operation: OperationName
    source: CountOrZero


class Cell(Options):
    """One cell of a genotype: the edges into every node, and the nodes that form the output."""

    kind: Kind
    nodes: tuple[Annotated[tuple[Edge, ...], Field(min_length=1)], ...] = Field(min_length=1)
    concat: Annotated[tuple[CountOrZero, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _acyclic_and_known(self) -> Self:
        for number, node in enumerate(self.nodes):
            for edge in node:
                if edge.source >= number + 2:
                    raise ValueError(
                        f"node {number}: source {edge.source} is not before it; allowed: 0..{number + 1}"
                    )
        last = len(self.nodes) + 1
        if len(set(self.concat)) < len(self.concat) or not all(2 <= index <= last for index in self.concat):
            raise ValueError(f"concat {list(self.concat)} must be distinct nodes, allowed: 2..{last}")
        return self

    def operations(self) -> list[str]:
        """The operations of all edges, node by node."""
        return [edge.operation for node in self.nodes for edge in node]


class CellArchitecture(Options):
    """A stack of cells: its genotype, its layout, and its size."""

    called: ClassVar[str] = "a cell network"

    schema_version: Literal[1] = 1
    type: Literal["cell"] = "cell"
    name: Name
    cells: Count
    channels: Count
    layout: Layout
    genotype: tuple[Cell, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        kinds = [cell.kind for cell in self.genotype]
        if len(set(kinds)) < len(kinds) or set(kinds) != set(self.layout.kinds):
            raise ValueError(
                f"genotype has cells {', '.join(kinds)}; the layout needs {', '.join(self.layout.kinds)}, once each"
            )
        self.places()
        return self

    def cell(self, kind: str) -> Cell:
        """The cell of a kind."""
        return next(cell for cell in self.genotype if cell.kind == kind)

    def places(self) -> list[CellPlace]:
        """Every cell of the stack from the input to the output."""
        concat = {cell.kind: len(cell.concat) for cell in self.genotype}
        try:
            return list(self.layout.places(self.cells, self.channels, concat))
        except ArchitectureError as error:
            raise ValueError(str(error)) from None

    def resized(self, cells: int | None = None, channels: int | None = None) -> CellArchitecture:
        """The same genotype at another depth or width. Raises `ArchitectureError` for an impossible size."""
        size = {"cells": cells, "channels": channels}
        tree = self.model_dump() | {key: value for key, value in size.items() if value is not None}
        return check(CellArchitecture, tree, self.name, ArchitectureError)

    def describe(self) -> str:
        """The size in words."""
        return f"{self.cells} cells, {self.channels} channels"

    def to_yaml(self) -> str:
        """YAML text that `load_architecture` turns back into an equal value."""
        return to_yaml(self)


Architecture = Annotated[
    CellArchitecture | ResidualArchitecture | MLPArchitecture, Field(discriminator="type")
]
FAMILIES: dict[str, type[CellArchitecture] | type[ResidualArchitecture] | type[MLPArchitecture]] = {
    "cell": CellArchitecture,
    "residual": ResidualArchitecture,
    "mlp": MLPArchitecture,
}


def architecture_from_text(text: str, source: str) -> Architecture:
    """The architecture that a YAML or JSON text describes. Raises `ArchitectureError`."""
    tree = parse_yaml(text, source)
    if not isinstance(tree, dict):
        raise ArchitectureError(f"{source}: a mapping of keys to values is needed, got {type(tree).__name__}")
    return _check(tree, source)


def load_architecture(name_or_path: str | Path) -> Architecture:
    """A shipped architecture by name (`arnas`, `rrn-a1`), a wide residual network by name (`wrn-28-10`), a YAML or
    JSON file, or a folder that holds one. Raises `ArchitectureError`.
    """
    path = existing_file(Path(name_or_path) / "architecture.yaml")
    if path is None:
        named = wide_resnet(str(name_or_path))
        if named is not None:
            return named
        path = shipped("architectures", name_or_path, ArchitectureError, also=WIDE_RESNETS)
    return _check(read_yaml(path), str(path))


def _check(tree: dict[str, Any], source: str) -> Architecture:
    """The architecture of the family that the tree's `type` names."""
    found, allowed = tree.get("type"), ", ".join(FAMILIES)
    if "type" not in tree:
        raise ArchitectureError(f"{source}: type: missing, and it has no default; allowed: {allowed}")
    if not isinstance(found, str) or found not in FAMILIES:
        raise ArchitectureError(f"{source}: type: got {found!r}; allowed: {allowed}")
    return check(FAMILIES[found], tree, source, ArchitectureError)
