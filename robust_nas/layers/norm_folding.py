"""Batch norm in eval mode as constants, alone or in the convolution before it: exact, up to rounding.

    bn(W * x + b) = (g / s) W * x + g / s (b - mean) + beta,   s = sqrt(var + eps)

C channels of the norm, M output channels of the convolution, c_in its inputs per group.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return scale and shift `[C]` with bn(y) = scale y + shift, detached."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    weight, bias = cast("Tensor | None", norm.weight), cast("Tensor | None", norm.bias)
    scale = (variance + norm.eps).rsqrt()
    scale = scale if weight is None else scale * weight.detach()
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias.detach()


def fold_norm(convolution: nn.Conv2d, norm: nn.BatchNorm2d, start: int = 0) -> tuple[Tensor, Tensor]:
    """Return weight `[M, c_in, k, k]` and bias `[M]` of a convolution with its batch norm folded in, detached.

    The convolution makes the channels `start` to `start + M` of the norm, which may follow a concatenation.
    """
    part = slice(start, start + convolution.out_channels)
    statistics: Any = norm
    scale, shift = (None if t is None else t[part] for t in (statistics.weight, statistics.bias))
    weight, bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        statistics.running_mean[part],
        statistics.running_var[part],
        norm.eps,
        scale,
        shift,
    )
    return weight.detach(), bias.detach()
