"""Multilayer perceptrons: hidden layers of one width on the flattened image, for theory and quick checks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from robust_nas.config import Count
from robust_nas.operations import ACTIVATIONS, ActivationName
from robust_nas.operations.cost import Part, linear
from robust_nas.spaces.architecture import Architecture, InputShape, Json
from robust_nas.spaces.layout import MAX_FILTERS


class MLPArchitecture(Architecture):
    """A multilayer perceptron: its hidden layers, their width, what they compute and how they start."""

    called: ClassVar[str] = "an MLP"
    network: ClassVar[str] = "robust_nas.nets.mlp:MLPNetwork"

    type: Literal["mlp"] = "mlp"
    depth: Annotated[Count, Field(le=1000)]  # hidden layers
    width: Annotated[Count, Field(le=MAX_FILTERS)]  # units of each hidden layer
    activation: ActivationName = "relu"  # of the hidden layers
    initialisation: Literal["he-fan-in", "lecun", "ntk"] = "he-fan-in"  # of the weights

    @model_validator(mode="after")
    def _activation_of_vectors(self) -> Self:
        if ACTIVATIONS.get(self.activation).needs_maps:
            raise ValueError(
                f"activation: got {self.activation!r}, which looks at the pixels of maps; {self.called} has none"
            )
        return self

    def describe(self) -> str:
        """Return the size in words."""
        return f"{self.depth} hidden layers of {self.width}"

    def arguments(self, input_shape: InputShape) -> Json:
        """Return the numbers of an image, and the options."""
        own = {key: getattr(self, key) for key in ("depth", "width", "activation", "initialisation")}
        return {"inputs": math.prod(input_shape), **own}

    def activations_used(self) -> frozenset[str]:
        """Return its activation."""
        return frozenset([self.activation])

    def parts(self, input_shape: InputShape, classes: int) -> Iterator[Part]:
        """Yield every hidden layer, a stage each, and the head."""
        inputs = math.prod(input_shape)
        own = ACTIVATIONS.get(self.activation).cost(self.width, 1)
        for number in range(1, self.depth + 1):
            yield Part(f"stage {number}", linear(inputs, self.width).plus(own))
            inputs = self.width
        yield Part("head", linear(inputs, classes))

    def content_name(self, shipped: Mapping[str, Json]) -> str:
        """Return `mlp-d3-w64`, and what is not default (`mlp-d3-w64.lecun`)."""
        return ".".join([f"mlp-d{self.depth}-w{self.width}", *self.changed({})])

    @property
    def total_depth(self) -> int:
        """Return the number of hidden layers."""
        return self.depth

    @property
    def total_width(self) -> int:
        """Return the units of a hidden layer."""
        return self.width

    def factors(self) -> dict[str, float | str]:
        """Return the options."""
        return {
            "depth": self.depth,
            "width": self.width,
            "activation": self.activation,
            "initialisation": self.initialisation,
        }
