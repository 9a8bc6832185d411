"""Compare listed architectures: by name, by file, or written out."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny
from pydantic_core import PydanticCustomError

from robust_nas.config import existing_file
from robust_nas.errors import CodeRefusedError, ConfigError
from robust_nas.spaces import Architecture, architecture_from_text, load_architecture
from robust_nas.studies.design.design import Configuration, Design, InputShape


def _read(entry: object) -> object:
    """Read a tree by its own family, so that an error in it names that family's keys; and a file, once and for all."""
    if isinstance(entry, dict):
        return architecture_from_text(json.dumps(entry, default=str), "list: architectures")
    if not isinstance(entry, str) or not (
        existing_file(entry) or existing_file(f"{entry}/architecture.yaml")
    ):
        return entry
    try:
        return load_architecture(entry)
    except CodeRefusedError:
        raise
    except ConfigError as error:
        raise PydanticCustomError("method", "{text}", {"text": str(error)}) from None


class ExplicitDesign(Design):
    """Architectures by name (`wrn-10-2`), by file (what it holds when the config is read), or written out."""

    name: Literal["list"] = "list"
    # by name, by file, or written out
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
