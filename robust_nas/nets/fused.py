"""A cell of the supernet with all gradients, the same function as `SupernetCell.forward`, faster.

What makes it faster, none of it an approximation (`docs/benchmarks.md`):

- ReLU and poolings belong to a state, not to an edge: computed once for each state, 5 times instead of 14 in a cell of
  four nodes. So are the batch statistics behind a pooling; every edge's running statistics are moved by them.
- The mixing weight of an operation that ends in a batch norm goes into that norm, as its weight, and terms are added
  in place: no products, and no copies of them for the backward pass.
- Depthwise convolutions have the backward pass of `depthwise.py`.

B batch, C channels, H height, W width, E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust_nas.layers.batch_norm import SynchronisedBatchNorm2d, batch_norm
from robust_nas.layers.depthwise import depthwise
from robust_nas.nets.operations import FactorizedReduce, ReLUConvBN, SeparableConv

if TYPE_CHECKING:
    from robust_nas.nets.supernet import SupernetCell


KNOWN = (
    nn.AvgPool2d,
    nn.Conv2d,
    nn.Identity,
    nn.MaxPool2d,
    nn.ModuleList,
    nn.ReLU,
    nn.Sequential,
    FactorizedReduce,
    ReLUConvBN,
    SeparableConv,
)
NORMS = (nn.BatchNorm2d, SynchronisedBatchNorm2d)


def has_hooks(module: nn.Module) -> bool:
    """Whether calling the module does more than its `forward`."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def as_built(cell: SupernetCell) -> bool:
    """Whether all of a cell is what it was built of, with its batch norms in one mode.

    Otherwise (a user has replaced, hooked or parametrised something) its modules are called one by one: the plain cell.
    """
    modes = set()
    own = (type(cell), type(cell.edges[0]))
    for module in cell.modules():
        if has_hooks(module):
            return False
        if type(module) in NORMS:
            norm = cast(nn.BatchNorm2d, module)
            modes.add((norm.training, norm.track_running_stats))
            if norm.affine or norm.momentum is None or norm.running_mean is None:
                return False
        elif type(module) not in KNOWN and type(module) not in own:
            return False
    return len(modes) == 1


def fused_cell(cell: SupernetCell, s0: Tensor, s1: Tensor, mixing: Tensor) -> Tensor:
    """Outputs of the two cells before and weights `[E, O]`, to `[B, nodes * C, H', W']`."""
    states = [cell.preprocess0(s0), cell.preprocess1(s1)]
    totals: list[Tensor | None] = [None] * cell.num_nodes
    for source in range(cell.num_nodes + 1):
        x = states[source]
        edges = [
            (node, cast(Any, operations), weights)
            for (node, start), operations, weights in zip(cell.ends, cell.edges, mixing.unbind(), strict=True)
            if start == source
        ]
        r = F.relu(x)
        for index, name in enumerate(cell.operations):
            column = [(node, operations[index], weights[index]) for node, operations, weights in edges]
            if name.endswith("pool_3x3"):
                _pooled(x, column, totals)
                continue
            for node, operation, weight in column:
                totals[node] = _term(totals[node], operation, x, r, weight)
        if source >= 1:  # the node after this source has all its terms
            states.append(cast(Tensor, totals[source - 1]))
    return torch.cat([_Dense.apply(state) for state in states[2:]], dim=1)  # type: ignore[no-untyped-call]


class _Dense(torch.autograd.Function):
    """The identity; its gradient, a slice of the concatenation's, gets memory of its own: batch norm wants it so."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous(memory_format=torch.channels_last)


def _added(total: Tensor | None, term: Tensor) -> Tensor:
    """The sum; the first term is its memory, in float32 at least: under autocast, terms have fewer bits."""
    if total is None:
        return term.float() if term.dtype in (torch.bfloat16, torch.float16) else term
    return total.add_(term)


def _scaled(total: Tensor | None, term: Tensor, weight: Tensor) -> Tensor:
    return _added(None, term * weight) if total is None else total.addcmul_(term, weight)


def _term(total: Tensor | None, operation: nn.Module, x: Tensor, r: Tensor, weight: Tensor) -> Tensor:
    """`total` and weight times the operation; `r` is the ReLU of `x`."""
    if isinstance(operation, SeparableConv):
        layers: list[Any] = list(operation)
        for start in range(0, len(layers), 4):
            x = layers[start + 2](depthwise(r, layers[start + 1]))
            if start + 4 < len(layers):
                r = F.relu_(layers[start + 3](x))
        return _added(total, weighted_norm(layers[-1], x, weight))
    if isinstance(operation, FactorizedReduce):
        return _added(total, weighted_norm(operation.bn, operation.halves(r), weight))
    return _scaled(total, operation(x), weight)


def weighted_norm(norm: nn.BatchNorm2d, x: Tensor, weight: Tensor) -> Tensor:
    """`weight` (a scalar) times the batch norm of `[B, C, H, W]`; the norm has no weights of its own."""
    if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    kept = not norm.training or norm.track_running_stats
    return normaliser(norm)(
        x,
        norm.running_mean if kept else None,
        norm.running_var if kept else None,
        weight.repeat(x.shape[1]),  # not `expand`: the backward pass on a CPU misreads a stride of 0
        None,
        norm.training,
        cast(float, norm.momentum),
        norm.eps,
    )


def normaliser(norm: nn.BatchNorm2d) -> Callable[..., Tensor]:
    """The function that a batch norm applies: of the batch at hand, or of all ranks together."""
    return batch_norm if isinstance(norm, SynchronisedBatchNorm2d) else F.batch_norm


def _pooled(x: Tensor, column: list[tuple[int, Any, Tensor]], totals: list[Tensor | None]) -> None:
    """Adds one pooling of `x` with its batch norm to the nodes, on every edge `(node, operation, weight)`."""
    pool, norm = column[0][1]
    x = pool(x)
    if not norm.training:
        for node, (_, own), weight in column:
            totals[node] = _added(totals[node], weighted_norm(own, x, weight))
        return
    mean, variance = torch.zeros_like(norm.running_mean), torch.ones_like(norm.running_var)
    x = normaliser(norm)(x, mean, variance, None, None, True, 1.0, norm.eps)
    for node, (_, own), weight in column:
        totals[node] = _scaled(totals[node], x, weight)
        if own.track_running_stats:
            own.num_batches_tracked.add_(1)
            own.running_mean.lerp_(mean, own.momentum)
            own.running_var.lerp_(variance, own.momentum)
