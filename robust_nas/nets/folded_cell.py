"""A cell of the supernet in eval mode, folded for input gradients alone.

Behind the last depthwise convolution of an operation everything is linear: pointwise convolution, batch norm, the
mixing weight, and the sums over operations and edges. With a = softmax(alpha) of an edge, and s, t the scale and shift
of an operation's last batch norm, a node is

    bias + sum over edges of  a x  +  (a s) maxpool(x)  +  (a s) avgpool(x)  +  sum over chains of  feature(x) M

    feature(x) = depthwise(relu(x))                                      dilated convolutions
                 depthwise(relu(depthwise(relu(x)) V + v))               separable ones
    M = W^T diag(a s),  W of the last pointwise convolution;   bias = sum of a t

so that a chain costs one matrix product that adds to the node in place. ReLU and poolings are computed once for each
state, not for each edge. The backward pass is written out: it knows that no weight wants a gradient, keeps one memory
layout (channels-last, where `[B, C, H, W]` is the matrix `[P, C]`), and takes depthwise gradients as forward
convolutions.

B batch, C channels, H height, W width, P = B H W pixels, N nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust_nas.layers.batch_norm import refuse_second_derivative
from robust_nas.layers.depthwise import same_size, thin


def matrix(x: Tensor) -> Tensor:
    """`[B, C, H, W]` as `[P, C]`; a view where the memory order is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def image(m: Tensor, like: Tensor) -> Tensor:
    """`[P, C]` as `[B, C, H, W]` of the height and width of `like`: a view."""
    return m.view(like.shape[0], *like.shape[2:], m.shape[1]).permute(0, 3, 1, 2)


def added(total: Tensor | None, term: Tensor) -> Tensor:
    """The sum, in the memory of `total` where there is one already."""
    return term if total is None else total.add_(term)


def thin_odd(x: Tensor) -> Tensor:
    """Every other row and column of `[B, C, H, W]` from the second one on; a missing last one is zero."""
    return F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1::2, 1::2].contiguous(
        memory_format=torch.channels_last
    )


@dataclass
class Depthwise:
    """A depthwise convolution `[C, 1, k, k]` and its transpose.

    `even`: stride and dilation are 2, and it reads `x[::2, ::2]`.
    """

    weight: Tensor
    flipped: Tensor
    dilation: int
    strided: bool
    even: bool

    @staticmethod
    def of(convolution: nn.Conv2d) -> Depthwise:
        """The one of a module."""
        weight = convolution.weight.detach()
        stride, dilation = convolution.stride[0], convolution.dilation[0]
        even = (stride, dilation) == (2, 2)
        return Depthwise(
            weight.clone(), weight.flip(2, 3), 1 if even else dilation, stride == 2 and not even, even
        )

    def __call__(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, C, H', W']`."""
        if self.strided:
            return F.conv2d(x, self.weight, stride=2, padding=self.weight.shape[2] // 2, groups=x.shape[1])
        return same_size(x, self.weight, self.dilation)

    def transposed(self, gradient: Tensor, x: Tensor) -> Tensor:
        """The gradient for the input `x` from that of the output."""
        if not self.strided:
            return same_size(gradient, self.flipped, self.dilation)
        found: Tensor = torch.ops.aten.convolution_backward(
            gradient, x, self.weight, None, [2, 2], [self.weight.shape[2] // 2] * 2, [1, 1], False, [0, 0],
            x.shape[1], [True, False, False],
        )[0]  # fmt: skip
        return found


@dataclass
class Chain:
    """A convolutional operation: a depthwise convolution, or two with ReLU(. V + v) between; then M."""

    first: Depthwise
    inner: tuple[Tensor, Tensor, Depthwise] | None  # V [C, C], v [C], and the second depthwise convolution
    out: Tensor  # M [C, C]


@dataclass
class FoldedEdge:
    """All operations of one edge into `node`."""

    node: int
    scales: dict[str, Tensor] = field(default_factory=dict)  # "x", "max", "avg" -> [C]
    chains: list[Chain] = field(default_factory=list)
    reductions: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # [C, C/2]: even and odd pixels


@dataclass
class FoldedCell:
    """The edges of a cell as constants, by source, and a bias `[C]` per node."""

    sources: list[list[FoldedEdge]]
    biases: list[Tensor]
    reduction: bool


def folded_cell(x0: Tensor, x1: Tensor, cell: FoldedCell) -> Tensor:
    """Both preprocessed inputs `[B, C, H, W]` to the nodes `[B, N C, H', W']`; gradients for the inputs alone."""
    out: Tensor = _Cell.apply(x0, x1, cell)  # type: ignore[no-untyped-call]
    return out


class _Cell(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x0: Tensor, x1: Tensor, cell: FoldedCell) -> Tensor:
        states = [x0, x1]
        kept: list[Tensor] = []  # what the backward pass needs, in the order of the loops
        small = thin(x0) if cell.reduction else x0
        nodes = [bias.expand(small.numel() // len(bias), -1).clone() for bias in cell.biases]
        for source, edges in enumerate(cell.sources):
            x = states[source]
            _source_forward(x, edges, 2 if cell.reduction and source < 2 else 1, nodes, kept)
            if source >= 1:  # the node after this source has all its terms
                states.append(image(nodes[source - 1], small))
        ctx.save_for_backward(*kept)
        ctx.cell = cell
        return torch.cat(states[2:], dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        refuse_second_derivative("a folded supernet")
        cell: FoldedCell = ctx.cell
        kept = list(ctx.saved_tensors)
        channels = len(cell.biases[0])
        # gradient of each state; those of the nodes are complete when their own source has been gone through
        states = [None, None, *(matrix(part).clone() for part in torch.split(gradient, channels, dim=1))]
        nodes = [image(g, gradient[:, :channels]) for g in states[2:] if g is not None]
        for source in reversed(range(len(cell.sources))):
            stride = 2 if cell.reduction and source < 2 else 1
            states[source] = _source_backward(cell.sources[source], stride, nodes, states[source], kept)
        like = ctx.saved_tensors[0]
        return image(cast(Tensor, states[0]), like), image(cast(Tensor, states[1]), like), None


def _source_forward(
    x: Tensor, edges: list[FoldedEdge], stride: int, nodes: list[Tensor], kept: list[Tensor]
) -> None:
    """Adds all that the state `x` contributes to `nodes`."""
    r = F.relu(x)
    even = thin(r) if stride == 2 else r
    odd = thin_odd(r) if any(edge.reductions for edge in edges) else r
    kept.append(r)
    features = {"x": x}
    if any("max" in edge.scales for edge in edges):
        features["max"], indices = torch.ops.aten.max_pool2d_with_indices(x, [3, 3], [stride] * 2, [1, 1])
        kept.append(indices)
    if any("avg" in edge.scales for edge in edges):
        features["avg"] = F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
    for edge in edges:
        node = nodes[edge.node]
        for name, scale in edge.scales.items():
            node.addcmul_(matrix(features[name]), scale)
        for to_even, to_odd in edge.reductions:
            half = to_even.shape[1]
            node[:, :half].addmm_(matrix(even), to_even)
            node[:, half:].addmm_(matrix(odd), to_odd)
        for chain in edge.chains:
            feature = chain.first(even if chain.first.even else r)
            if chain.inner:
                v, shift, second = chain.inner
                middle = image(torch.addmm(shift, matrix(feature), v).relu_(), feature)
                kept.append(middle)
                feature = second(middle)
            node.addmm_(matrix(feature), chain.out)


def _source_backward(
    edges: list[FoldedEdge], stride: int, nodes: list[Tensor], total: Tensor | None, kept: list[Tensor]
) -> Tensor:
    """The gradient `[P, C]` of a state, added to `total`, from those of the nodes; takes its tensors from `kept`."""
    to_r: Tensor | None = None
    to_even: Tensor | None = None
    to_odd: Tensor | None = None
    to_pooled: dict[str, Tensor] = {}
    middles = [kept.pop() for edge in edges for chain in edge.chains if chain.inner]
    indices = kept.pop() if any("max" in edge.scales for edge in edges) else None
    r = kept.pop()
    for edge in edges:
        g = nodes[edge.node]
        m = matrix(g)
        for name, scale in edge.scales.items():
            if name == "x":
                total = m * scale if total is None else total.addcmul_(m, scale)
            elif name in to_pooled:
                to_pooled[name].addcmul_(m, scale)
            else:
                to_pooled[name] = m * scale
        for by_even, by_odd in edge.reductions:
            half = by_even.shape[1]
            to_even = added(to_even, m[:, :half] @ by_even.t())
            to_odd = added(to_odd, m[:, half:] @ by_odd.t())
        for chain in edge.chains:
            back = m @ chain.out.t()
            if chain.inner:
                v, _, second = chain.inner
                middle = middles.pop()
                back = matrix(second.transposed(image(back, g), middle))
                torch.ops.aten.threshold_backward.grad_input(back, matrix(middle), 0, grad_input=back)
                back = back @ v.t()
            found = matrix(chain.first.transposed(image(back, g), r))
            if chain.first.even:
                to_even = added(to_even, found)
            else:
                to_r = added(to_r, found)
    return _to_state(r, stride, total, to_r, to_even, to_odd, to_pooled, indices, nodes[0])


def _to_state(
    r: Tensor,
    stride: int,
    total: Tensor | None,
    to_r: Tensor | None,
    to_even: Tensor | None,
    to_odd: Tensor | None,
    to_pooled: dict[str, Tensor],
    indices: Tensor | None,
    like: Tensor,
) -> Tensor:
    """The gradient `[P, C]` of the state whose ReLU is `r`, from those of all that was made of it."""
    g = torch.zeros_like(r) if to_r is None else image(to_r, r)
    if to_even is not None:
        g[:, :, ::2, ::2].add_(image(to_even, like))
    if to_odd is not None:
        inside = g[:, :, 1::2, 1::2]
        inside.add_(image(to_odd, like)[:, :, : inside.shape[2], : inside.shape[3]])
    own = matrix(g)
    torch.ops.aten.threshold_backward.grad_input(own, matrix(r), 0, grad_input=own)
    total = added(total, own)
    if "max" in to_pooled:
        total.add_(
            matrix(
                torch.ops.aten.max_pool2d_with_indices_backward(
                    image(to_pooled["max"], like), r, [3, 3], [stride] * 2, [1, 1], [1, 1], False, indices
                )
            )
        )
    if "avg" in to_pooled:
        total.add_(
            matrix(
                torch.ops.aten.avg_pool2d_backward(
                    image(to_pooled["avg"], like), r, [3, 3], [stride] * 2, [1, 1], False, False, None
                )
            )
        )
    return total
