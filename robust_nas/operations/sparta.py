"""Sparta-style activation: spatially attentive and dependent on the input; it starts as SiLU.

    Sparta(X) = X * sigmoid(phi(X)),   phi = depthwise 3x3 (padding 1) + bias      (`sparta-1x1`: then 1x1)

The paper says that ReLU is shared over space and independent of the input, that its activation is neither, and that one
trained in a ResNet-18 can be used frozen in a ResNet-34, and one of CIFAR-10 on SVHN. Its formula was not available:
phi, its start and the sharing here are inferences. ReLU is the limit phi = k X, k to infinity; SiLU is phi = X; the
identity phi to infinity. One module serves all places of a stage with the same number of channels, and its key in a
network's state is `stage-channels`: a transfer is then by key, whatever the depth.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from robust_nas.operations.activation import Activation
from robust_nas.operations.layer import Layer

LAYER = "robust_nas.layers.sparta:Sparta"


class Sparta(Activation):
    """x sigmoid(phi(x)), phi a depthwise 3x3 convolution."""

    name: Literal["sparta"] = "sparta"
    layer = Layer(LAYER)
    shared: ClassVar[bool] = True
    needs_maps: ClassVar[bool] = True

    @classmethod
    def params(cls, channels: int) -> int:
        """Return those of kernels and bias."""
        return 10 * channels

    @classmethod
    def macs(cls, channels: int, pixels: int) -> int:
        """Return those of the depthwise convolution."""
        return 9 * channels * pixels


class MixedSparta(Sparta):
    """x sigmoid(phi(x)), phi a depthwise 3x3 convolution and a 1x1 convolution behind it."""

    name: Literal["sparta-1x1"] = "sparta-1x1"  # type: ignore[assignment] # another name than its base
    layer = Layer(LAYER, mixed=True)

    @classmethod
    def params(cls, channels: int) -> int:
        """Return those of both convolutions."""
        return super().params(channels) + channels**2

    @classmethod
    def macs(cls, channels: int, pixels: int) -> int:
        """Return those of both convolutions."""
        return super().macs(channels, pixels) + channels**2 * pixels
