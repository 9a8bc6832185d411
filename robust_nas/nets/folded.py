"""The supernet in eval mode, folded for input gradients: what an attack in a search runs on.

From a supernet to the constants of `folded_cell.py`. C channels, E edges, O operations, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust_nas.layers.depthwise import subsample, subsample_odd
from robust_nas.layers.factorised_reduction import FactorizedReduce
from robust_nas.layers.inspection import is_unchanged
from robust_nas.layers.norm_folding import fold_norm, scale_and_shift
from robust_nas.layers.relu_conv_bn import ReLUConvBN
from robust_nas.nets.folded_cell import FoldedCell, folded_nodes
from robust_nas.operations import OPERATIONS
from robust_nas.operations.folded_terms import Term, fold_module, to_dtype


class Output:
    """The output `[B, C, H, W]` of a cell or the stem, and its ReLU, computed where it is asked for."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    @cached_property
    def relu(self) -> Tensor:
        """The ReLU, which two cells may see."""
        return F.relu(self.x)


@dataclass
class PointwiseAdapter:
    """1x1 convolutions (weight, bias) of the ReLU: one of all pixels, or those of even and of odd ones."""

    parts: list[tuple[Tensor, Tensor]]

    def __call__(self, output: Output) -> Tensor:
        """Return a cell's input `[B, C, H, W]`."""
        r = output.relu
        if len(self.parts) == 1:
            return F.conv2d(r, *self.parts[0])
        pixels = (subsample(r), subsample_odd(r))
        even, odd = (F.conv2d(x, *part) for x, part in zip(pixels, self.parts, strict=True))
        return torch.cat([even, odd], dim=1)


@dataclass
class ModuleAdapter:
    """Any module, frozen and in eval mode; it computes in its own dtype."""

    module: nn.Module
    dtype: torch.dtype

    def __call__(self, output: Output) -> Tensor:
        """Return a cell's input `[B, C, H, W]`."""
        adapted: Tensor = self.module(output.x.to(self.dtype))
        return adapted.to(output.x.dtype)


Adapter = PointwiseAdapter | ModuleAdapter


@dataclass
class AdaptedCell:
    """A folded cell behind the adapters of its inputs; `output` are the nodes that it gives, all of them where None."""

    adapters: list[Adapter]
    cell: FoldedCell
    output: tuple[int, ...] | None = None

    def __call__(self, outputs: list[Output]) -> Tensor:
        """Map the outputs of the stem and of all cells before to `[B, C', H', W']`."""
        seen = zip(self.adapters, outputs[-len(self.adapters) :], strict=True)
        nodes = folded_nodes([adapter(output) for adapter, output in seen], self.cell)
        if self.output is None:
            return nodes
        parts = torch.split(nodes, len(self.cell.biases[0]), dim=1)
        return torch.cat([parts[node] for node in self.output], dim=1)


@dataclass
class FoldedParts:
    """A supernet as constants of one dtype; `last` is the layer before the pooling.

    `cells` map the outputs of the stem and of all cells before to their own: an `AdaptedCell`, or another dataclass.
    """

    normalise: nn.Module
    stem: tuple[Tensor, Tensor]
    cells: Sequence[Callable[[list[Output]], Tensor]]
    classifier: tuple[Tensor, Tensor]
    last: nn.Module | None = None


class FoldableSupernet(Protocol):
    """A supernet that gives itself as constants."""

    def fold(self) -> FoldedParts:
        """Return the present weights, statistics and alphas as constants: copies."""


class FoldedSupernet(nn.Module):
    """A supernet in eval mode with the weights and alphas of one moment; `forward` gives its logits `[B, K]`.

    It holds copies: nothing that happens to the supernet later reaches it, and no parameter of it has a gradient. It
    stays in the dtype and on the device it was made in. Under autocast, all of it but the classifier computes in the
    dtype of that.
    """

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def __init__(self, supernet: FoldableSupernet) -> None:
        super().__init__()
        self.parts = supernet.fold()
        self.normalise = self.parts.normalise
        self.low_precision: FoldedParts | None = None
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Map images `[B, C, H, W]` in 0..1 to logits `[B, K]`."""
        x, parts = self.normalise(x), self.parts
        device = x.device.type
        if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
            half = torch.get_autocast_dtype(device)
            x, parts = x.to(half), self._in(half)
        with torch.autocast(device, enabled=False):
            x = F.conv2d(x.contiguous(memory_format=torch.channels_last), *parts.stem, padding=1)
            outputs = [Output(x)] * 2
            for cell in parts.cells:
                x = cell(outputs)
                outputs = [outputs[-1], Output(x)]
            weight, bias = self.parts.classifier
            if parts.last is not None:
                x = parts.last(x.to(weight.dtype))
            return F.linear(x.mean((2, 3)).to(weight.dtype), weight, bias)

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def _in(self, dtype: torch.dtype) -> FoldedParts:
        if self.low_precision is None or self.low_precision.stem[0].dtype != dtype:
            self.low_precision = to_dtype(self.parts, dtype)
        return cast(FoldedParts, self.low_precision)


def fold_cell(
    ends: Sequence[tuple[int, int]],
    edges: Iterable[nn.Module],
    operations: Sequence[str],
    edge_weights: Tensor,
    channels: int,
    reduction: bool,
    inputs: int = 2,
    chosen: Sequence[int] | None = None,
) -> FoldedCell:
    """Return the folded form of a cell: `ends` are (node, source) of every edge, `edge_weights` is `[E, O]`.

    With `chosen` `[E]` it has one operation an edge. An operation without a fold of its own, or whose module a user has
    changed, is called as it is.
    """
    number = 1 + max(node for node, _ in ends)
    biases = [edge_weights.new_zeros(channels) for _ in range(number)]
    sources: list[list[tuple[int, Term]]] = [[] for _ in range(number + inputs - 1)]
    for edge, ((node, source), candidates) in enumerate(zip(ends, edges, strict=True)):
        modules, weights = cast(Any, candidates), edge_weights[edge]
        for index in range(len(operations)) if chosen is None else (chosen[edge],):
            operation, module, weight = OPERATIONS.get(operations[index]), modules[index], weights[index]
            if operation.knows(module):
                terms, bias = operation.fold(module, weight)
            else:
                terms, bias = fold_module(module, weight)
            sources[source] += [(node, term) for term in terms]
            if bias is not None:
                biases[node] += bias
    return FoldedCell(sources, biases, reduction, inputs)


def fold_adapter(module: nn.Module, dtype: torch.dtype) -> Adapter:
    """Return the folded form of the layers between a cell and one of its inputs."""
    if not is_unchanged(module) or type(module) not in (ReLUConvBN, FactorizedReduce):
        return ModuleAdapter(copy.deepcopy(module).eval().requires_grad_(False), dtype)
    own = cast(Any, module)
    if isinstance(module, ReLUConvBN):
        return PointwiseAdapter([fold_norm(own[1], own[2])])
    kernel = torch.cat([own.conv1.weight, own.conv2.weight])
    scale, shift = scale_and_shift(own.bn)
    half = own.conv1.out_channels
    whole = kernel * scale[:, None, None, None]
    return PointwiseAdapter([(whole[:half], shift[:half]), (whole[half:], shift[half:])])
