"""Depthwise convolutions on a CPU by the fastest of several equal forms.

    y[b,c,o] = sum_t w[c,t] x[b,c, s o + d t - p],     p = d (k - 1) / 2

oneDNN is slow for kernels that reach beyond the map, and for the gradients of dilated ones. The same numbers come from
forms that are fast (`docs/decisions.md`):

    any       taps t with |d t - p| >= side meet zeros alone: they are cropped; what remains on 2x2 maps is a product
    stride 1  dL/dx is the forward convolution of dL/dy with the flipped kernel
    stride 1  dL/dw at d = 2 is a sum over the four parities of pixel positions, each at d = 1; that at d = 1 is found
              for the three middle columns of taps at once, and for each other column on an x that is moved by it;
              on small maps it is a sum of products, a tap after the other
    stride 2  at d = 2, p is even, so that only even positions of x count: the same without either on x[::2, ::2]

Under autocast they compute in float32: a half-precision convolution of this kind gains nothing. On a GPU, and where
torch.compile makes code of what surrounds it, `nn.Conv2d` is called as it is.

B batch, C channels, H height, W width, k kernel, s stride, d dilation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    """Map `[B, C, H, W]` to `[B, C, ceil(H/s), ceil(W/s)]`: what a depthwise convolution of odd kernel gives."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return nn.Conv2d.forward(convolution, x)
    weight = convolution.weight
    stride, dilation = convolution.stride[0], convolution.dilation[0]
    x = x.to(weight.dtype) if torch.is_autocast_enabled("cpu") else x
    with torch.autocast("cpu", enabled=False):
        if (stride, dilation) == (2, 2):
            return same_size(subsample(x), weight, 1)
        if _gains(weight.shape[2], stride, dilation):
            return cast(Tensor, _SameSize.apply(x, weight, dilation))  # type: ignore[no-untyped-call]
        return same_size(x, weight, dilation, stride)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise `nn.Conv2d` that computes by the fastest form."""

    def forward(self, input: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, C, ceil(H/s), ceil(W/s)]`."""
        return depthwise(input, self)


def quicken(network: nn.Module) -> list[nn.Module]:
    """Let the dilated depthwise convolutions of a network compute by the fastest form; return those that now do.

    Names, tensors and hooks stay. Only plain `nn.Conv2d` of odd kernel, with zeros around that keep the size, change.
    """
    changed: list[nn.Module] = [
        module for module in network.modules() if type(module) is nn.Conv2d and _is_known(module)
    ]
    for module in changed:
        module.__class__ = DepthwiseConv2d
    return changed


@contextmanager
def quickened(network: nn.Module) -> Iterator[nn.Module]:
    """The network with `quicken` inside, and as it was outside: what reads its modules meets those of torch."""
    changed = quicken(network)
    try:
        yield network
    finally:
        for module in changed:
            module.__class__ = nn.Conv2d


def _gains(kernel: int, stride: int, dilation: int) -> bool:
    """Return whether the gradients by other forms take less time than oneDNN's."""
    return stride == 1 and (dilation == 2 or (dilation == 1 and kernel >= 5))


def _is_known(convolution: nn.Conv2d) -> bool:
    """Return whether a convolution gains and is one that `depthwise` computes."""
    kernel = convolution.kernel_size[0]
    stride, dilation = convolution.stride[0], convolution.dilation[0]
    padding = dilation * (kernel - 1) // 2
    return (
        convolution.groups == convolution.in_channels == convolution.out_channels
        and convolution.bias is None
        and convolution.padding_mode == "zeros"
        and convolution.kernel_size == (kernel, kernel)
        and convolution.stride == (stride, stride)
        and convolution.dilation == (dilation, dilation)
        and convolution.padding == (padding, padding)
        and kernel % 2 == 1
        and (_gains(kernel, stride, dilation) or stride == dilation == 2)
    )


class _SameSize(torch.autograd.Function):
    """A depthwise convolution of stride 1; its backward pass can be differentiated again."""

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
        with torch.autocast("cpu", enabled=False):
            return (
                same_size(gradient, weight.flip(2, 3), ctx.dilation) if to_x else None,
                weight_gradient(x, gradient, weight, ctx.dilation) if to_weight else None,
                None,
            )


def _kept(kernel: int, side: int, dilation: int) -> slice:
    """Return the taps of one axis that meet the map at all: an odd number of them around the centre."""
    radius = min((kernel - 1) // 2, (side - 1) // dilation)
    return slice((kernel - 1) // 2 - radius, (kernel + 1) // 2 + radius)


def same_size(x: Tensor, weight: Tensor, dilation: int, stride: int = 1) -> Tensor:
    """Return the convolution of `[B, C, H, W]` with kernels `[C, 1, k, k]`, padded to keep the size at stride 1."""
    reach = dilation * (weight.shape[2] - 1) // 2
    padding = (reach, reach)
    if reach >= min(x.shape[2:]):
        rows, columns = (_kept(weight.shape[2], side, dilation) for side in x.shape[2:])
        weight = weight[:, :, rows, columns]
        height, width = weight.shape[2:]
        if height == width == 1:
            return (subsample(x) if stride == 2 else x) * weight.view(1, -1, 1, 1)
        padding = (dilation * (height - 1) // 2, dilation * (width - 1) // 2)
    return F.conv2d(x, weight, None, stride, padding, dilation, len(weight))


def weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Return the gradient `[C, 1, k, k]` of the kernels, from the input and the output's gradient `[B, C, H, W]`."""
    kernel, side = weight.shape[2], min(x.shape[2:])
    if dilation == 2 and side >= 4 * (kernel - 1):  # twice what the kernel spans
        x, gradient, dilation = _parities(x), _parities(gradient), 1
        side = min(x.shape[2:])
    if dilation == 1 and side >= 2 * (kernel - 1):
        return _by_columns(x, gradient, weight)
    return _by_taps(x, gradient, kernel, dilation)


def _by_columns(x: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    """Return the same without dilation from kernels of at most three columns: oneDNN has a fast form for those."""
    reach = (weight.shape[3] - 1) // 2

    def found(x: Tensor, kernel: Tensor) -> Tensor:
        gradients: list[Tensor] = torch.ops.aten.convolution_backward(
            gradient, x, kernel, None, [1, 1], [reach, (kernel.shape[3] - 1) // 2], [1, 1], False, [0, 0],
            len(kernel), [False, True, False],
        )  # fmt: skip
        return gradients[1]

    columns = [found(F.pad(x, (right, -right)), weight[..., :1]) for right in range(reach, 1, -1)]
    columns.append(found(x, weight[..., reach - 1 : reach + 2]))
    columns += [found(F.pad(x, (-left, left)), weight[..., :1]) for left in range(2, reach + 1)]
    return torch.cat(columns, 3)


def _by_taps(x: Tensor, gradient: Tensor, kernel: int, dilation: int) -> Tensor:
    """Return the same as a sum over pixels for each tap that meets the map; the others have no gradient."""
    rows, columns = (_kept(kernel, side, dilation) for side in x.shape[2:])
    above, left = (dilation * (kept.stop - kept.start - 1) // 2 for kept in (rows, columns))
    height, width = x.shape[2:]
    padded = F.pad(x, (left, left, above, above)).permute(0, 2, 3, 1)
    pixels = gradient.permute(0, 2, 3, 1)
    found = [
        (padded[:, down : down + height, right : right + width] * pixels).flatten(0, 2).sum(0)
        for down in range(0, 2 * above + 1, dilation)
        for right in range(0, 2 * left + 1, dilation)
    ]
    inside = torch.stack(found, 1).view(-1, 1, rows.stop - rows.start, columns.stop - columns.start)
    return F.pad(inside, (columns.start, columns.start, rows.start, rows.start))


def _parities(x: Tensor) -> Tensor:
    """Return `[B, C, H, W]` as `[4 B, C, ceil(H/2), ceil(W/2)]`: even and odd rows and columns apart, zeros to fill."""
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    parts = [x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)
