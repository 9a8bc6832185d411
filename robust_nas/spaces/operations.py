"""The candidate operations of cell spaces by name, with their analytic parameters and MACs.

C channels in and out, H x W the input's size, output ceil(H/stride) x ceil(W/stride). MACs are multiply-adds of
convolutions and linear layers alone; batch norm, pooling and additions count as zero (FLOPs = 2 x MACs).
Definitions: DARTS (Liu et al., 2019), `cnn/operations.py` of the official code, restated in `docs/methods/dsara.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

Activation = Literal["relu", "silu", "gelu", "softplus"]  # of networks that have a choice; cells have ReLU


class Cost(NamedTuple):
    """Parameters and MACs; adds component-wise with `plus`."""

    params: int
    macs: int

    def plus(self, other: Cost) -> Cost:
        """The sum of two costs."""
        return Cost(self.params + other.params, self.macs + other.macs)


class Part(NamedTuple):
    """A part of a network by name (`stem`, `stage 1`, ..., `head`) and what it costs."""

    name: str
    cost: Cost


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of costs."""
    params, macs = 0, 0
    for cost in costs:
        params, macs = params + cost.params, macs + cost.macs
    return Cost(params, macs)


def linear(c_in: int, c_out: int) -> Cost:
    """A linear layer with bias."""
    return Cost((c_in + 1) * c_out, c_in * c_out)


def batch_norm(channels: int, affine: bool) -> Cost:
    """Scale and shift where they are learned; no MACs by this package's convention."""
    return Cost(2 * channels if affine else 0, 0)


def pointwise(c_in: int, c_out: int, pixels: int, affine: bool) -> Cost:
    """1x1 convolution without bias, and batch norm."""
    return Cost(c_in * c_out, c_in * c_out * pixels).plus(batch_norm(c_out, affine))


def factorized_reduce(c_in: int, c_out: int, pixels: int, affine: bool) -> Cost:
    """Two strided 1x1 convolutions of half the outputs each, and batch norm; `pixels` of the output."""
    return pointwise(c_in, c_out, pixels, affine)


def _separable(kernel: int, repeats: int) -> Callable[[int, int, int, bool], Cost]:
    """`repeats` depthwise + pointwise + batch norm blocks, the first one strided."""

    def cost(channels: int, stride: int, pixels: int, affine: bool) -> Cost:
        depthwise = Cost(channels * kernel**2, channels * kernel**2 * pixels)
        block = depthwise.plus(pointwise(channels, channels, pixels, affine))
        return Cost(repeats * block.params, repeats * block.macs)

    return cost


def _skip(channels: int, stride: int, pixels: int, affine: bool) -> Cost:
    return Cost(0, 0) if stride == 1 else factorized_reduce(channels, channels, pixels, affine)


def _free(channels: int, stride: int, pixels: int, affine: bool) -> Cost:
    return Cost(0, 0)


# name -> cost(channels, stride, output pixels, affine batch norm)
OPERATIONS: dict[str, Callable[[int, int, int, bool], Cost]] = {
    "max_pool_3x3": _free,
    "avg_pool_3x3": _free,
    "skip_connect": _skip,
    "sep_conv_3x3": _separable(3, 2),
    "sep_conv_5x5": _separable(5, 2),
    "dil_conv_3x3": _separable(3, 1),
    "dil_conv_5x5": _separable(5, 1),
}
