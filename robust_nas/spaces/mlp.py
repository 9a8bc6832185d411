"""Multilayer perceptrons: hidden layers of one width on the flattened image, for theory and quick checks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from robust_nas.config import Count, Options, to_yaml
from robust_nas.operations import ACTIVATIONS
from robust_nas.spaces.layout import MAX_FILTERS, Name
from robust_nas.spaces.operations import Activation, Cost, Part, linear


class MLPArchitecture(Options):
    """A multilayer perceptron: its hidden layers, their width, what they compute and how they start."""

    called: ClassVar[str] = "an MLP"

    schema_version: Literal[1] = 1
    type: Literal["mlp"] = "mlp"
    name: Name
    depth: Annotated[Count, Field(le=1000)]  # hidden layers
    width: Annotated[Count, Field(le=MAX_FILTERS)]  # of each of them
    activation: Activation = "relu"
    initialisation: Literal["he-fan-in", "lecun", "ntk"] = "he-fan-in"

    def describe(self) -> str:
        """The size in words."""
        return f"{self.depth} hidden layers of {self.width}"

    def to_yaml(self) -> str:
        """YAML text that `load_architecture` turns back into an equal value."""
        return to_yaml(self)


def parts(architecture: MLPArchitecture, input_shape: tuple[int, int, int], classes: int) -> Iterator[Part]:
    """Every hidden layer, a stage each, and the head."""
    inputs = math.prod(input_shape)
    own = Cost(ACTIVATIONS.get(architecture.activation).params(architecture.width), 0)
    for number in range(1, architecture.depth + 1):
        yield Part(f"stage {number}", linear(inputs, architecture.width).plus(own))
        inputs = architecture.width
    yield Part("head", linear(inputs, classes))
