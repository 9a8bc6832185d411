"""The neural tangent kernel of a small convolutional network in the style of Myrtle networks (Shankar et al., 2020).

Groups of 3x3 convolutions with ReLU, a 2x2 average pooling between groups, a global average and a linear layer. Every
covariance is between position p of x and position q of z, `[pairs, H, W, H, W]` (Arora et al., 2019); o are the 9
offsets of a convolution, with zeros outside:

    S[p, q] = <x_p, z_q> / C                                       T: nothing yet
    S[p, q] = ws / 9 sum_o S[p + o, q + o] + bs,   T = S + ws / 9 sum_o T[p + o, q + o]
    S' = E relu relu,   T' = T E relu' relu'                       `relu_layer.py`, by the variances at p and at q
    pooling and global average: means over p and over q
    k = ws S' + bs + ws T'                                         the linear layer

Written from the recursion of Arora et al.; the exact layers of published Myrtle kernels were not looked up. Time and
memory grow with (H W)^2: pairs are computed in parts, each again in the backward pass, so that memory stays bounded.

A, B numbers of images, P pairs in a part, C channels, H height, W width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import Field

from robust_nas.config import Count, NonNegative, Positive
from robust_nas.errors import ConfigError
from robust_nas.kernels.kernel import Kernel, Shape
from robust_nas.kernels.relu_layer import relu_layer
from robust_nas.lazy import F, torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

LARGEST = 14 * 14  # pixels: a pair of larger images takes more than 0.3 MB and milliseconds
Computed = TypeVar("Computed")
VALUES = 2**19  # of one covariance of a part: 4 MB


class MyrtleNTK(Kernel):
    """The tangent kernel of convolutions, ReLU and average pooling; `blocks` are the convolutions of each group."""

    name: Literal["myrtle-ntk"] = "myrtle-ntk"
    # convolutions of each group, with a pooling after it
    blocks: Annotated[tuple[Count, ...], Field(min_length=1, max_length=4)] = (1, 1)
    weight_variance: Positive = 2.0  # variance of a weight, times the inputs of a layer
    bias_variance: NonNegative = 0.01  # variance of a bias

    def refuse_shape(self, shape: Shape) -> None:
        """Raise `ConfigError` for images that cannot be pooled between groups, or are too large."""
        _, height, width = shape
        factor = 2 ** (len(self.blocks) - 1)
        if height % factor or width % factor:
            raise ConfigError(
                f"kernel {self.label}: images are {height} x {width}; {len(self.blocks)} groups of convolutions need "
                f"sides that {factor} divides: fewer entries in blocks, or another kernel"
            )
        if height * width > LARGEST:
            raise ConfigError(
                f"kernel {self.label}: images are {height} x {width}; at most {LARGEST} pixels are taken, as time and "
                "memory grow with their square: smaller images, or kernel relu-ntk"
            )

    def macs(self, shape: Shape, support: int) -> int:
        """Return the inner products of all positions: of each pair, and of each image with itself."""
        channels, height, width = shape
        return channels * (height * width) ** 2 * (2 * support + 1)

    def gram(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the kernel `[A, B]`."""
        x, z = x.double(), z.double()
        self.refuse_shape((x.shape[1], x.shape[2], x.shape[3]))
        size = math.prod(x.shape[2:]) ** 2
        columns = max(1, VALUES // size)
        rows = max(1, columns // len(z))
        x_parts, z_parts = (
            [(part, in_part(self._variances, part)) for part in torch.split(images, count)]
            for images, count in ((x, rows), (z, columns))
        )
        return torch.cat(
            [torch.cat([in_part(self._pairs, a, b, *v, *w) for b, w in z_parts], dim=1) for a, v in x_parts]
        )

    def _variances(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the variance of every position before each ReLU, `[A, H, W]`, which needs the whole covariances."""
        flat, sides = x.flatten(2), x.shape[2:]
        covariance = torch.einsum("acp,acq->apq", flat, flat).reshape(-1, *sides, *sides) / x.shape[1]
        found = []
        for group, count in enumerate(self.blocks):
            covariance = pooled(covariance) if group else covariance
            for _ in range(count):
                covariance = self._convolved(covariance) + self.bias_variance
                whole = covariance.flatten(3).flatten(1, 2)
                variance = whole.diagonal(dim1=1, dim2=2).reshape(covariance.shape[:3])
                found.append(variance)
                covariance, _ = relu_layer(covariance, variance[:, :, :, None, None], variance[:, None, None])
        return tuple(found)

    def _pairs(self, x: Tensor, z: Tensor, *variances: Tensor) -> Tensor:
        """Return the kernel of two parts; `variances` are those of x before each ReLU, then those of z."""
        sides, count = x.shape[2:], len(variances) // 2
        covariance = torch.einsum("acp,bcq->abpq", x.flatten(2), z.flatten(2)) / x.shape[1]
        covariance = covariance.reshape(-1, *sides, *sides)  # [P, H, W, H, W]
        tangent: Tensor | None = None
        own = zip(variances[:count], variances[count:], strict=True)
        for group, layers in enumerate(self.blocks):
            if group and tangent is not None:
                covariance, tangent = pooled(covariance), pooled(tangent)
            for _ in range(layers):
                covariance = self._convolved(covariance) + self.bias_variance
                tangent = covariance + (0 if tangent is None else self._convolved(tangent))
                v, w = next(own)
                v = v[:, None].expand(-1, len(z), -1, -1).flatten(0, 1)[:, :, :, None, None]
                w = w[None].expand(len(x), -1, -1, -1).flatten(0, 1)[:, None, None]
                covariance, slope = relu_layer(covariance, v, w)
                tangent = tangent * slope
        assert tangent is not None  # noqa: S101 - there is a group
        last = (covariance + tangent).flatten(1).mean(1).reshape(len(x), len(z))
        return self.weight_variance * last + self.bias_variance

    def _convolved(self, covariance: Tensor) -> Tensor:
        """Return ws / 9 times the sum over the 9 common offsets of p and q, rows and then columns."""
        H, W = covariance.shape[1:3]
        p = F.pad(covariance, (0, 0, 1, 1, 0, 0, 1, 1))
        rows = p[:, :H, :, :H] + p[:, 1:-1, :, 1:-1] + p[:, 2:, :, 2:]
        p = F.pad(rows, (1, 1, 0, 0, 1, 1))
        both = p[:, :, :W, :, :W] + p[:, :, 1:-1, :, 1:-1] + p[:, :, 2:, :, 2:]
        return both * (self.weight_variance / 9)


def pooled(covariance: Tensor) -> Tensor:
    """Return the covariances of 2x2 averages, `[P, H / 2, W / 2, H / 2, W / 2]`."""
    P, H, W, _, _ = covariance.shape
    return covariance.reshape(P, H // 2, 2, W // 2, 2, H // 2, 2, W // 2, 2).mean((2, 4, 6, 8))


def in_part(compute: Callable[..., Computed], *tensors: Tensor) -> Computed:
    """Return `compute(*tensors)`; where a gradient is asked for, it is computed again then, and nothing is kept."""
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors):
        return compute(*tensors)
    from torch.utils.checkpoint import checkpoint

    found: Computed = checkpoint(compute, *tensors, use_reentrant=False, preserve_rng_state=False)
    return found
