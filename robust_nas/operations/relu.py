"""ReLU: max(x, 0)."""

from __future__ import annotations

from typing import Literal

from robust_nas.operations.activation import Activation
from robust_nas.operations.layer import Layer


class ReLU(Activation):
    """max(x, 0)."""

    name: Literal["relu"] = "relu"
    layer = Layer("robust_nas.layers.activations:relu")
