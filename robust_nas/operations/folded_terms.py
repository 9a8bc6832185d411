"""What operations add to the nodes of a cell in eval mode, as constants, with gradients for the input alone.

A node is a sum of terms of earlier states x, r = relu(x); with the edge weight a, and s, t the scale and shift of a
candidate's last batch norm (the t go into the node's bias):

    Scaled       scale * x, maxpool(x) or avgpool(x)
    Reduction    even(r) M and odd(r) M', each to one half of the channels          (even, odd: every other pixel)
    Chain        feature(r) M,  M = W^T diag(a s),  W of the last pointwise convolution
                 feature = depthwise(r), or depthwise(relu(depthwise(r) V + v))
    Dense        conv(r, W diag(a s))
    ModuleTerm   a * module(x), any module in eval mode; its backward pass is autograd's

Terms add to a node in place, and share what is made of a state. The backward pass is written out: it knows that no
weight wants a gradient, keeps one memory layout (channels-last, where `[B, C, H, W]` is the matrix `[P, C]`), and takes
depthwise gradients as forward convolutions.

B batch, C channels, H height, W width, P = B H W pixels.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust_nas.layers.depthwise import same_size, subsample, subsample_odd


def matrix(x: Tensor) -> Tensor:
    """Return `[B, C, H, W]` as `[P, C]`; a view where the memory order is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def image(m: Tensor, like: Tensor) -> Tensor:
    """Return `[P, C]` as `[B, C, H, W]` of the height and width of `like`: a view."""
    return m.view(like.shape[0], *like.shape[2:], m.shape[1]).permute(0, 3, 1, 2)


def added(total: Tensor | None, term: Tensor) -> Tensor:
    """Return the sum, in the memory of `total` where there is one already."""
    return term if total is None else total.add_(term)


def add_scaled(total: Tensor, term: Tensor, scale: Tensor) -> None:
    """Add `scale` (`[C]` or one number) times a term `[P, C]` to the total, in place.

    A CPU multiplies rows that do not fill its registers slowly, most of all in bf16: several rows are taken as one.
    """
    rows, channels = total.shape
    together = 1
    if total.device.type == "cpu" and channels % 32 and total.is_contiguous() and term.is_contiguous():
        while 2 * together * channels <= 256 and rows % (2 * together) == 0:
            together *= 2
    if together > 1:
        total, term = total.view(-1, together * channels), term.view(-1, together * channels)
        scale = scale.repeat(together if scale.numel() > 1 else 1)
    total.addcmul_(term, scale)


def pools_by_sums(x: Tensor, stride: int) -> bool:
    """Return whether the 3x3 average of `[B, C, H, W]` takes less time as a convolution: on a CPU, for large maps."""
    return x.device.type == "cpu" and stride == 1 and min(x.shape[2:]) > 1 and x.numel() >= 2**16


def sums(x: Tensor) -> Tensor:
    """Return a ninth of the sum over 3x3 pixels of `[B, C, H, W]`."""
    return same_size(x, x.new_full((x.shape[1], 1, 3, 3), 1 / 9), 1)


def scale_border(x: Tensor) -> Tensor:
    """Multiply the border by 9 over the pixels of its window, in place: 3/2 for each side that is at the edge."""
    for line in (x[:, :, 0], x[:, :, -1], x[..., 0], x[..., -1]):
        line.mul_(1.5)
    return x


class SourceState:
    """A state `[B, C, H, W]` in the forward pass, and what its terms share; what is asked for is computed once."""

    def __init__(self, x: Tensor, stride: int, wants_gradient: bool) -> None:
        self.x, self.stride, self.wants_gradient = x, stride, wants_gradient
        self.r = F.relu(x)
        self.indices: Tensor | None = None  # of the max pooling
        self.kept: list[Tensor] = []  # what terms keep for their backward pass, in their order
        self.graphs: list[
            tuple[Tensor, Tensor]
        ] = []  # input and output of the modules that autograd takes back

    @cached_property
    def even(self) -> Tensor:
        """Every other pixel of the ReLU where the edges are strided, else all."""
        return subsample(self.r) if self.stride == 2 else self.r

    @cached_property
    def odd(self) -> Tensor:
        """The pixels between, of a strided edge."""
        return subsample_odd(self.r)

    @cached_property
    def max(self) -> Tensor:
        """The 3x3 max pooling."""
        pooled: tuple[Tensor, Tensor] = torch.ops.aten.max_pool2d_with_indices(
            self.x, [3, 3], [self.stride] * 2, [1, 1]
        )
        self.indices = pooled[1]
        return pooled[0]

    @cached_property
    def avg(self) -> Tensor:
        """The 3x3 average pooling, without the border."""
        if pools_by_sums(self.x, self.stride):
            return scale_border(sums(self.x))
        return F.avg_pool2d(self.x, 3, self.stride, 1, count_include_pad=False)


class SourceGradient:
    """The gradients `[P, C]` of a state and of all that was made of it, in the backward pass."""

    def __init__(
        self,
        total: Tensor | None,
        r: Tensor,
        stride: int,
        kept: list[Tensor],
        graphs: list[tuple[Tensor, Tensor]],
    ) -> None:
        self.x, self.r, self.stride = total, r, stride
        self.kept, self.graphs = iter(kept), iter(graphs)
        self.relu: Tensor | None = None
        self.even: Tensor | None = None
        self.odd: Tensor | None = None
        self.pooled: dict[str, Tensor] = {}

    def finish(self, like: Tensor, indices: Tensor | None) -> Tensor:
        """Return the gradient `[P, C]` of the state; `like` is a map of the nodes' size."""
        r, stride = self.r, self.stride
        g = torch.zeros_like(r) if self.relu is None else image(self.relu, r)
        if self.even is not None:
            g[:, :, ::2, ::2].add_(image(self.even, like))
        if self.odd is not None:
            inside = g[:, :, 1::2, 1::2]
            inside.add_(image(self.odd, like)[:, :, : inside.shape[2], : inside.shape[3]])
        own = matrix(g)
        torch.ops.aten.threshold_backward.grad_input(own, matrix(r), 0, grad_input=own)
        total = added(self.x, own)
        window = ([3, 3], [stride] * 2, [1, 1])
        if "max" in self.pooled:
            pooled = image(self.pooled["max"], like)
            total.add_(
                matrix(
                    torch.ops.aten.max_pool2d_with_indices_backward(
                        pooled, r, *window, [1, 1], False, indices
                    )
                )
            )
        if "avg" in self.pooled:
            pooled = image(self.pooled["avg"], like)
            if pools_by_sums(r, stride):
                total.add_(matrix(sums(scale_border(pooled))))
            else:
                total.add_(matrix(torch.ops.aten.avg_pool2d_backward(pooled, r, *window, False, False, None)))
        return total


class Term(Protocol):
    """One summand of a node. `add` and `add_gradient` see the terms of a state in the same order."""

    def add(self, node: Tensor, source: SourceState) -> None:
        """Add to the node `[P, C]`, in place."""

    def add_gradient(self, node: Tensor, like: Tensor, to: SourceGradient) -> None:
        """Add to the gradients of the source from that of the node, `[P, C]`; `like` is that as a map."""


@dataclass
class Scaled:
    """The state or one of its poolings times `scale` `[C]`."""

    of: Literal["x", "max", "avg"]
    scale: Tensor

    def add(self, node: Tensor, source: SourceState) -> None:
        """Add to the node `[P, C]`, in place."""
        add_scaled(node, matrix(getattr(source, self.of)), self.scale)

    def add_gradient(self, node: Tensor, like: Tensor, to: SourceGradient) -> None:
        """Add to the gradients of the source."""
        total = to.x if self.of == "x" else to.pooled.get(self.of)
        if total is not None:
            add_scaled(total, node, self.scale)
        elif self.of == "x":
            to.x = node * self.scale
        else:
            to.pooled[self.of] = node * self.scale


@dataclass
class Reduction:
    """A factorised reduction: matrices `[C, C/2]` from even pixels to the first channels, from odd ones to the rest."""

    to_even: Tensor
    to_odd: Tensor

    def add(self, node: Tensor, source: SourceState) -> None:
        """Add to the node `[P, C]`, in place."""
        half = self.to_even.shape[1]
        node[:, :half].addmm_(matrix(source.even), self.to_even)
        node[:, half:].addmm_(matrix(source.odd), self.to_odd)

    def add_gradient(self, node: Tensor, like: Tensor, to: SourceGradient) -> None:
        """Add to the gradients of the source."""
        half = self.to_even.shape[1]
        to.even = added(to.even, node[:, :half] @ self.to_even.t())
        to.odd = added(to.odd, node[:, half:] @ self.to_odd.t())


@dataclass
class Depthwise:
    """A depthwise convolution `[C, 1, k, k]` and its transpose, at stride 1 that of the flipped kernel.

    `even`: stride and dilation are 2, and it reads `x[::2, ::2]`.
    """

    weight: Tensor
    flipped: Tensor
    dilation: int
    strided: bool
    even: bool

    @staticmethod
    def of(convolution: nn.Conv2d) -> Depthwise:
        """Return the constants of a module."""
        weight = convolution.weight.detach()
        stride, dilation = convolution.stride[0], convolution.dilation[0]
        even = (stride, dilation) == (2, 2)
        return Depthwise(
            weight.clone(), weight.flip(2, 3), 1 if even else int(dilation), stride == 2 and not even, even
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, C, H', W']`."""
        return same_size(x, self.weight, self.dilation, 2 if self.strided else 1)

    def transposed(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Return the gradient for the input `x` from that of the output."""
        if self.strided:
            if gradient.dtype != torch.bfloat16 or x.device.type != "cpu":
                return input_gradient(gradient, x, self.weight, 2, x.shape[1])
            strided, gradient = (
                gradient,
                torch.zeros_like(x),
            )  # oneDNN has no fast gradient in bf16: zeros between
            gradient[:, :, ::2, ::2] = strided
        return same_size(gradient, self.flipped, self.dilation)


def input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """Return the gradient of a convolution without dilation for its input `x` `[B, C, H, W]`."""
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [stride] * 2, [weight.shape[2] // 2] * 2, [1, 1], False, [0, 0], groups,
        [True, False, False],
    )[0]  # fmt: skip
    return found


@dataclass
class Chain:
    """A separable convolution: a depthwise one, or two with relu(. V + v) between; then M."""

    first: Depthwise
    inner: tuple[Tensor, Tensor, Depthwise] | None  # V [C, C], v [C], and the second depthwise convolution
    out: Tensor  # M [C, C]

    def add(self, node: Tensor, source: SourceState) -> None:
        """Add to the node `[P, C]`, in place."""
        feature = self.first(source.even if self.first.even else source.r)
        if self.inner:
            v, shift, second = self.inner
            middle = image(torch.addmm(shift, matrix(feature), v).relu_(), feature)
            source.kept.append(middle)
            feature = second(middle)
        node.addmm_(matrix(feature), self.out)

    def add_gradient(self, node: Tensor, like: Tensor, to: SourceGradient) -> None:
        """Add to the gradients of the source."""
        back = node @ self.out.t()
        if self.inner:
            v, _, second = self.inner
            middle = next(to.kept)
            back = matrix(second.transposed(image(back, like), middle))
            torch.ops.aten.threshold_backward.grad_input(back, matrix(middle), 0, grad_input=back)
            back = back @ v.t()
        found = matrix(self.first.transposed(image(back, like), to.r))
        if self.first.even:
            to.even = added(to.even, found)
        else:
            to.relu = added(to.relu, found)


@dataclass
class Dense:
    """A convolution `[C, C, k, k]` of the state's ReLU; a strided 1x1 one reads every other pixel."""

    weight: Tensor
    stride: int

    def add(self, node: Tensor, source: SourceState) -> None:
        """Add to the node `[P, C]`, in place."""
        kernel = self.weight.shape[2]
        if kernel == 1:
            node.addmm_(matrix(source.even), self.weight[:, :, 0, 0].t())
        else:
            node.add_(matrix(F.conv2d(source.r, self.weight, stride=self.stride, padding=kernel // 2)))

    def add_gradient(self, node: Tensor, like: Tensor, to: SourceGradient) -> None:
        """Add to the gradients of the source."""
        if self.weight.shape[2] > 1:
            found = input_gradient(image(node, like), to.r, self.weight, self.stride, 1)
            to.relu = added(to.relu, matrix(found))
            return
        found = node @ self.weight[:, :, 0, 0]
        if self.stride == 2:
            to.even = added(to.even, found)
        else:
            to.relu = added(to.relu, found)


@dataclass
class ModuleTerm:
    """The edge weight times any module, a frozen copy of it in eval mode that computes in its own dtype."""

    module: nn.Module
    weight: Tensor
    dtype: torch.dtype

    def add(self, node: Tensor, source: SourceState) -> None:
        """Add to the node `[P, C]`, in place."""
        x = source.x.to(self.dtype)
        if source.wants_gradient:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                output = self.module(x.clone())  # which may work in place
            source.graphs.append((x, output))
        else:
            output = self.module(x.clone())
        node.addcmul_(matrix(output.detach().to(node.dtype)), self.weight)

    def add_gradient(self, node: Tensor, like: Tensor, to: SourceGradient) -> None:
        """Add to the gradients of the source."""
        x, output = next(to.graphs)
        if not output.requires_grad:  # its output does not depend on the input
            return
        gradient = image(node * self.weight, like).to(output.dtype)
        (found,) = torch.autograd.grad(output, x, gradient, retain_graph=True, allow_unused=True)
        if found is not None:
            own = matrix(found).to(node.dtype)
            to.x = own.clone() if to.x is None else to.x.add_(own)


def fold_module(module: nn.Module, weight: Tensor) -> tuple[list[Term], Tensor | None]:
    """Return the term of any candidate as it is now, with its edge weight, and no bias."""
    own = copy.deepcopy(module).eval().requires_grad_(False)
    return [ModuleTerm(own, weight.clone(), weight.dtype)], None


def to_dtype(tree: Any, dtype: torch.dtype) -> Any:
    """Return the same tree of constants with its tensors in another dtype; modules stay as they are."""
    if isinstance(tree, Tensor):
        return tree.to(dtype)
    if isinstance(tree, (list, tuple)):
        return type(tree)(to_dtype(branch, dtype) for branch in tree)
    if isinstance(tree, dict):
        return {key: to_dtype(branch, dtype) for key, branch in tree.items()}
    if is_dataclass(tree) and not isinstance(tree, type):
        changed = {one.name: to_dtype(getattr(tree, one.name), dtype) for one in fields(tree)}
        return replace(tree, **changed)
    return tree
