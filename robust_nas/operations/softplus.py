"""Softplus: log(1 + exp(x)), smooth everywhere."""

from __future__ import annotations

from typing import Literal

from robust_nas.operations.activation import Activation
from robust_nas.operations.layer import Layer


class Softplus(Activation):
    """log(1 + exp(x)), smooth everywhere."""

    name: Literal["softplus"] = "softplus"
    layer = Layer("robust_nas.layers.activations:softplus")
