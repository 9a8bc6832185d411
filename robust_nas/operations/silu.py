"""SiLU: x sigmoid(x) (Elfwing et al., 2018)."""

from __future__ import annotations

from typing import Literal

from robust_nas.operations.activation import Activation
from robust_nas.operations.layer import Layer


class SiLU(Activation):
    """x sigmoid(x) (Elfwing et al., 2018)."""

    name: Literal["silu"] = "silu"
    layer = Layer("robust_nas.layers.activations:silu")
