"""Dilated depthwise convolution whose backward pass runs at the forward's speed on a CPU.

    y[b,c,o] = sum_t w[c,t] x[b,c, s o + d t - p],     p = d (k - 1) / 2

oneDNN's gradients of dilated depthwise convolutions run at a tenth of the forward's rate. The same numbers come from
convolutions that are fast (`docs/benchmarks.md`):

    stride 1:  dL/dx is the forward convolution of dL/dy with the flipped kernel
               dL/dw, at dilation 2, is a sum over the four parities of pixel positions, each without dilation
    stride 2:  p is even, so that only even positions of x count: no stride and no dilation on x[::2, ::2]

Without dilation, and on a GPU, `nn.Conv2d` is called as it is. B batch, C channels, H height, W width, k kernel.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def subsample(x: Tensor) -> Tensor:
    """Return every other row and column of `[B, C, H, W]`, as memory of its own."""
    return x[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)


def subsample_odd(x: Tensor) -> Tensor:
    """Return every other row and column of `[B, C, H, W]` from the second one on; a missing last one is zero."""
    return F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1::2, 1::2].contiguous(
        memory_format=torch.channels_last
    )


def depthwise(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Map `[B, C, H, W]` to `[B, C, ceil(H/s), ceil(W/s)]`: `convolution(x)`, a depthwise one of odd kernel."""
    if x.device.type != "cpu" or convolution.dilation[0] != 2:
        return cast(Tensor, convolution(x))
    weight = convolution.weight
    if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
        half = torch.get_autocast_dtype("cpu")
        x, weight = x.to(half), weight.to(half)
    if convolution.stride[0] == 2:
        return same_size(subsample(x), weight, 1)
    return cast(Tensor, _Depthwise.apply(x, weight, 2))  # type: ignore[no-untyped-call]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return same_size(x, weight, dilation)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        to_x, to_weight = ctx.needs_input_grad[:2]
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return (
            same_size(gradient, weight.flip(2, 3), ctx.dilation) if to_x else None,
            weight_gradient(x, gradient, weight, ctx.dilation) if to_weight else None,
            None,
        )


def same_size(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Return the convolution of `[B, C, H, W]` with kernels `[C, 1, k, k]` at stride 1, padded to keep the size."""
    return F.conv2d(
        x, weight, padding=dilation * (weight.shape[2] - 1) // 2, dilation=dilation, groups=len(weight)
    )


def weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Return the gradient `[C, 1, k, k]` of the kernels, from the input and the output's gradient `[B, C, H, W]`."""
    # Below the kernel's size, oneDNN is as slow without dilation as with it.
    if dilation == 2 and min(x.shape[2:]) >= 2 * weight.shape[2]:
        x, gradient, dilation = _parities(x), _parities(gradient), 1
    padding = dilation * (weight.shape[2] - 1) // 2
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [1, 1], [padding] * 2, [dilation] * 2, False, [0, 0], len(weight),
        [False, True, False],
    )[1]  # fmt: skip
    return found


def _parities(x: Tensor) -> Tensor:
    """Return `[B, C, H, W]` as `[4 B, C, ceil(H/2), ceil(W/2)]`: even and odd rows and columns apart, zeros to fill."""
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    parts = [x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)
