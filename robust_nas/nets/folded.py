"""The supernet in eval mode, folded for input gradients: what an attack in a search runs on.

From a supernet to the constants of `folded_cell.py`. C channels, E edges, O operations, K classes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from robust_nas.layers.depthwise import thin
from robust_nas.nets.folded_cell import Chain, Depthwise, FoldedCell, FoldedEdge, folded_cell, thin_odd
from robust_nas.nets.operations import FactorizedReduce

if TYPE_CHECKING:
    from robust_nas.nets.supernet import Supernet, SupernetCell


@dataclass
class _Parts:
    """Everything behind the normalisation, as constants of one dtype."""

    stem: tuple[Tensor, Tensor]
    adapters: list[tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]]
    cells: list[FoldedCell]
    classifier: tuple[Tensor, Tensor]


class FoldedSupernet(nn.Module):
    """A supernet in eval mode with the weights and alphas of now; `forward` gives its logits `[B, K]`.

    It holds copies: nothing that happens to the supernet later reaches it, and no parameter of it has a gradient.
    It stays in the dtype and on the device it was made in. Under autocast, all of it but the classifier computes in the
    dtype of that.
    """

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def __init__(self, supernet: Supernet) -> None:
        super().__init__()
        self.normalise = copy.deepcopy(supernet.normalise)
        mixing = {kind: alpha.softmax(dim=1) for kind, alpha in supernet.alphas.items()}
        self.parts = _Parts(
            stem=_convolution(*supernet.stem),
            adapters=[(_adapter(cell.preprocess0), _adapter(cell.preprocess1)) for cell in supernet.cells],
            cells=[fold_cell(cast("SupernetCell", cell), mixing[str(cell.kind)]) for cell in supernet.cells],
            classifier=(supernet.classifier.weight.clone(), supernet.classifier.bias.clone()),
        )
        self.halved: _Parts | None = None
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, C, H, W]` in 0..1 to logits `[B, K]`."""
        x, parts = self.normalise(x), self.parts
        device = x.device.type
        if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
            half = torch.get_autocast_dtype(device)
            x, parts = x.to(half), self._in(half)
        with torch.autocast(device, enabled=False):
            x = F.conv2d(x.contiguous(memory_format=torch.channels_last), *parts.stem, padding=1)
            r0 = r1 = F.relu(x)
            for (adapt0, adapt1), cell in zip(parts.adapters, parts.cells, strict=True):
                x = folded_cell(_adapted(r0, adapt0), _adapted(r1, adapt1), cell)
                r0, r1 = r1, F.relu(x)
            weight, bias = self.parts.classifier
            return F.linear(x.mean((2, 3)).to(weight.dtype), weight, bias)

    def _in(self, dtype: torch.dtype) -> _Parts:
        if self.halved is None or self.halved.stem[0].dtype != dtype:
            self.halved = _to(self.parts, dtype)
        return self.halved


def _to(tree: Any, dtype: torch.dtype) -> Any:
    """The same tree with its tensors in another dtype."""
    if isinstance(tree, Tensor):
        return tree.to(dtype)
    if isinstance(tree, (list, tuple)):
        return type(tree)(_to(branch, dtype) for branch in tree)
    if isinstance(tree, dict):
        return {key: _to(branch, dtype) for key, branch in tree.items()}
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{one.name: _to(getattr(tree, one.name), dtype) for one in fields(tree)})
    return tree


def norm_scale(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift `[C]` of a batch norm in eval mode that has no weights of its own."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = (variance + norm.eps).rsqrt()
    return scale, -mean * scale


def fold_cell(cell: SupernetCell, mixing: Tensor) -> FoldedCell:
    """The folded form of a cell for mixing weights `[E, O]`."""
    channels = cell.channels
    biases = [mixing.new_zeros(channels) for _ in range(cell.num_nodes)]
    sources: list[list[FoldedEdge]] = [[] for _ in range(cell.num_nodes + 1)]
    for (node, source), operations, weights in zip(cell.ends, cell.edges, mixing, strict=True):
        edge = FoldedEdge(node)
        for name, operation, weight in zip(cell.operations, cast(Any, operations), weights, strict=True):
            bias = fold_operation(edge, name, operation, weight, channels)
            if bias is not None:
                biases[node] += bias
        sources[source].append(edge)
    return FoldedCell(sources, biases, cell.reduction)


def fold_operation(
    edge: FoldedEdge, name: str, operation: Any, weight: Tensor, channels: int
) -> Tensor | None:
    """Adds an operation with its mixing weight to `edge`; returns what it adds to the node's bias."""
    if name.endswith("pool_3x3"):
        scale, shift = norm_scale(operation[1])
        edge.scales[name[:3]] = weight * scale
        return weight * shift
    if isinstance(operation, nn.Identity):
        edge.scales["x"] = weight.repeat(channels)
        return None
    if isinstance(operation, FactorizedReduce):
        scale, shift = norm_scale(operation.bn)
        kernels = torch.cat([operation.conv1.weight, operation.conv2.weight])[:, :, 0, 0].t()
        half = operation.conv1.out_channels
        whole = kernels * (weight * scale)
        edge.reductions.append((whole[:, :half].contiguous(), whole[:, half:].contiguous()))
        return weight * shift
    layers = list(operation)
    scale, shift = norm_scale(layers[-1])
    out = layers[-2].weight[:, :, 0, 0].t() * (weight * scale)
    inner = None
    if len(layers) == 8:
        inner_scale, inner_shift = norm_scale(layers[3])
        inner = (layers[2].weight[:, :, 0, 0].t() * inner_scale, inner_shift, Depthwise.of(layers[5]))
    edge.chains.append(Chain(Depthwise.of(layers[1]), inner, out))
    return weight * shift


def _convolution(convolution: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with its batch norm folded in."""
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return weight.detach(), bias.detach()


def _adapter(module: Any) -> list[tuple[Tensor, Tensor]]:
    """A preprocessing as 1x1 convolutions of a state's ReLU: one, or those of even and of odd pixels."""
    if not isinstance(module, FactorizedReduce):
        return [_convolution(module[1], module[2])]
    kernel = torch.cat([module.conv1.weight, module.conv2.weight])
    scale, shift = norm_scale(module.bn)
    half = module.conv1.out_channels
    whole = kernel * scale[:, None, None, None]
    return [(whole[:half], shift[:half]), (whole[half:], shift[half:])]


def _adapted(r: Tensor, adapter: list[tuple[Tensor, Tensor]]) -> Tensor:
    if len(adapter) == 1:
        return F.conv2d(r, *adapter[0])
    even, odd = (F.conv2d(x, *part) for x, part in zip((thin(r), thin_odd(r)), adapter, strict=True))
    return torch.cat([even, odd], dim=1)
