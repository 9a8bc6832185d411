"""Compare training methods: the base architecture, trained by each of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from robust_nas.config import Count, to_dict
from robust_nas.spaces import Architecture
from robust_nas.studies.design.design import Configuration, Design, InputShape
from robust_nas.training.method import TrainingMethod


class NamedMethod(TrainingMethod):
    """A method, what it is called, and its epochs (None: the recipe's)."""

    label: Annotated[str, Field(min_length=1, max_length=100)]  # name in tables
    epochs: Count | None = None  # passes over the data; None: the recipe's

    @property
    def called(self) -> str:
        """Return the name of its configuration."""
        return self.label if self.epochs is None else f"{self.label} ({self.epochs} epochs)"

    def recipe(self) -> Iterator[str]:
        """Yield its overrides of the training recipe."""
        for key, value in to_dict(self).items():
            if key != "label" and value is not None:
                yield f"{key}={json.dumps(value)}"


class MethodsDesign(Design):
    """The base architecture by every listed training method: the loss, step and hooks of the recipe are replaced."""

    name: Literal["methods"] = "methods"
    methods: tuple[NamedMethod, ...] = Field(min_length=1)  # training methods

    def configurations(
        self, base: Architecture, input_shape: InputShape, classes: int
    ) -> list[Configuration]:
        """Return one configuration per method, under the method's name."""
        return [
            Configuration(base, tuple(method.recipe()), self.arm, method.label, method.called)
            for method in self.methods
        ]
