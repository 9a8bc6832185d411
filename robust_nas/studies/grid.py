"""Every combination of listed values, and listed architectures."""

from __future__ import annotations

import json
import math
from itertools import product
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from robust_nas.config import Options, parse_yaml
from robust_nas.errors import ConfigError, StudyError
from robust_nas.spaces import AnyArchitecture, Architecture, architecture_from_text, load_architecture
from robust_nas.studies.choices import MAX_CHOICES, RECIPE, Arm, Choice, InputShape, Values, varied


def _read(entry: object) -> object:
    """A tree is read here, so that what is wrong in it is told for its own family."""
    return (
        architecture_from_text(json.dumps(entry, default=str), "list: architectures")
        if isinstance(entry, dict)
        else entry
    )


class Grid(Options):
    """The product of its axes, the last one changing fastest.

    A key is a place in the architecture's tree (`depths`, `widths.2`, `cells`, `layout.filters.1`, `initialisation`),
    with list indices from 0, or `training.` and a key of the training recipe.
    """

    name: Literal["grid"] = "grid"
    arm: Arm = ""
    axes: dict[str, Values] = Field(min_length=1)

    def choices(self, base: Architecture, input_shape: InputShape, classes: int) -> list[Choice]:
        """One choice per combination. Raises `StudyError` or `ArchitectureError`, naming axis and value."""
        points = math.prod(map(len, self.axes.values()))
        if points > MAX_CHOICES:
            raise StudyError(
                f"grid: its axes make {points} configurations; at most {MAX_CHOICES} are allowed"
            )
        found = []
        for values in product(*self.axes.values()):
            point = dict(zip(self.axes, values, strict=True))
            changes = {key: value for key, value in point.items() if not key.startswith(RECIPE)}
            recipe = tuple(
                f"{key.removeprefix(RECIPE)}={_written(value)}"
                for key, value in point.items()
                if key.startswith(RECIPE)
            )
            found.append(Choice(varied(base, changes, "grid"), recipe, self.arm))
        return found


class Listed(Options):
    """Architectures by name (`wrn-10-2`), by file, or written out."""

    name: Literal["list"] = "list"
    arm: Arm = ""
    architectures: tuple[Annotated[str | AnyArchitecture, BeforeValidator(_read)], ...] = Field(min_length=1)

    def choices(self, base: Architecture, input_shape: InputShape, classes: int) -> list[Choice]:
        """One choice per entry, under its own name. Raises `ArchitectureError` for what cannot be found or read."""
        return [
            Choice(load_architecture(entry) if isinstance(entry, str) else entry, (), self.arm)
            for entry in self.architectures
        ]


def _written(value: object) -> str:
    """YAML text on one line that means the value."""
    try:
        plain = isinstance(value, str) and parse_yaml(value, "a value") == value
    except ConfigError:
        plain = False
    return str(value) if plain else json.dumps(value, default=str)
