"""Compare every combination of listed values."""

from __future__ import annotations

import json
import math
from itertools import product
from typing import Literal

from pydantic import Field

from robust_nas.config import parse_yaml
from robust_nas.errors import ConfigError, StudyError
from robust_nas.spaces import Architecture
from robust_nas.studies.design.changes import Values, varied
from robust_nas.studies.design.design import MAX_CONFIGURATIONS, RECIPE, Configuration, Design, InputShape


class GridDesign(Design):
    """The product of its axes, the last one changing fastest.

    A key is a place in the architecture's tree (`depths`, `widths.2`, `cells`, `layout.filters.1`, `initialisation`),
    with list indices from 0, or `training.` and a key of the training recipe.
    """

    name: Literal["grid"] = "grid"
    # keys of the architecture or the training with their values
    axes: dict[str, Values] = Field(min_length=1)

    def configurations(
        self, base: Architecture, input_shape: InputShape, classes: int
    ) -> list[Configuration]:
        """Return one configuration per combination.

        Raises `StudyError` or `ArchitectureError`, naming axis and value.
        """
        points = math.prod(map(len, self.axes.values()))
        if points > MAX_CONFIGURATIONS:
            raise StudyError(
                f"grid: its axes make {points} configurations; at most {MAX_CONFIGURATIONS} are allowed"
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
            found.append(Configuration(varied(base, changes, "grid"), recipe, self.arm))
        return found


def _written(value: object) -> str:
    """Return YAML text on one line that means the value."""
    try:
        plain = isinstance(value, str) and parse_yaml(value, "a value") == value
    except ConfigError:
        plain = False
    return str(value) if plain else json.dumps(value, default=str)
