"""Compare listed architectures: by name, by file, or written out."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from robust_nas.spaces import Architecture, architecture_from_text, load_architecture
from robust_nas.studies.design.design import Configuration, Design, InputShape


def _read(entry: object) -> object:
    """Read a tree by its own family, so that an error in it names that family's keys."""
    return (
        architecture_from_text(json.dumps(entry, default=str), "list: architectures")
        if isinstance(entry, dict)
        else entry
    )


class ExplicitDesign(Design):
    """Architectures by name (`wrn-10-2`), by file, or written out."""

    name: Literal["list"] = "list"
    architectures: tuple[Annotated[str | SerializeAsAny[Architecture], BeforeValidator(_read)], ...] = Field(
        min_length=1
    )

    def configurations(
        self, base: Architecture, input_shape: InputShape, classes: int
    ) -> list[Configuration]:
        """Return one configuration per entry, under its own name. Raises `ArchitectureError` for an unreadable one."""
        return [
            Configuration(load_architecture(entry) if isinstance(entry, str) else entry, (), self.arm)
            for entry in self.architectures
        ]
