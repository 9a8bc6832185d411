"""Parameters and MACs in integers, of layers and of what they sum to.

MACs are multiply-adds of convolutions and linear layers alone, those inside an activation too; batch norm, functions of
single numbers, pooling and additions count as zero (FLOPs = 2 x MACs).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import NamedTuple

_NORMS_COUNT: ContextVar[bool] = ContextVar("robust_nas_norms_count", default=True)


class Cost(NamedTuple):
    """Parameters and MACs; adds component-wise with `plus`."""

    params: int
    macs: int

    def plus(self, other: Cost) -> Cost:
        """Return the sum of two costs."""
        return Cost(self.params + other.params, self.macs + other.macs)

    def times(self, count: int) -> Cost:
        """Return the cost of `count` equal parts."""
        return Cost(self.params * count, self.macs * count)


class Part(NamedTuple):
    """A part of a network by name (`stem`, `stage 1`, ..., `head`) and what it costs."""

    name: str
    cost: Cost


def total(costs: Iterable[Cost]) -> Cost:
    """Return the sum of costs."""
    params, macs = 0, 0
    for cost in costs:
        params, macs = params + cost.params, macs + cost.macs
    return Cost(params, macs)


def linear(c_in: int, c_out: int) -> Cost:
    """Return the cost of a linear layer with bias."""
    return Cost((c_in + 1) * c_out, c_in * c_out)


def convolution(c_in: int, c_out: int, kernel: int, pixels: int, groups: int = 1) -> Cost:
    """Return the cost of a convolution without bias; `pixels` of its output."""
    params = c_in * c_out * kernel**2 // groups
    return Cost(params, params * pixels)


def batch_norm(channels: int, affine: bool) -> Cost:
    """Return the cost of scale and shift where they are learned; no MACs by this package's convention."""
    return Cost(2 * channels if affine and _NORMS_COUNT.get() else 0, 0)


@contextlib.contextmanager
def norms_left_out() -> Iterator[None]:
    """Let batch norms cost nothing inside: a count of what else is trained."""
    token = _NORMS_COUNT.set(False)
    try:
        yield
    finally:
        _NORMS_COUNT.reset(token)


def pointwise(c_in: int, c_out: int, pixels: int, affine: bool) -> Cost:
    """Return the cost of a 1x1 convolution without bias, and batch norm."""
    return convolution(c_in, c_out, 1, pixels).plus(batch_norm(c_out, affine))


def factorized_reduce(c_in: int, c_out: int, pixels: int, affine: bool) -> Cost:
    """Return the cost of two strided 1x1 convolutions that share the outputs, and batch norm; output `pixels`."""
    return pointwise(c_in, c_out, pixels, affine)
