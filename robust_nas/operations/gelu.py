"""GELU: x times the standard normal distribution function of x (Hendrycks and Gimpel, 2016)."""

from __future__ import annotations

from typing import Literal

from robust_nas.operations.activation import Activation
from robust_nas.operations.layer import Layer


class GELU(Activation):
    """x times the standard normal distribution function of x (Hendrycks and Gimpel, 2016)."""

    name: Literal["gelu"] = "gelu"
    layer = Layer("robust_nas.layers.activations:gelu")
