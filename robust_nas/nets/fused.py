"""A cell of the supernet with all gradients, the same function as `SupernetCell.forward`, faster.

What makes it faster, none of it an approximation (`docs/benchmarks.md`):

- ReLU and poolings belong to a state, not to an edge: computed once for each state, 5 times instead of 14 in a cell of
  four nodes. So are the batch statistics behind a pooling; every edge's running statistics are moved by them.
- The edge weight of an operation that ends in a batch norm goes into that norm, as its weight, and terms are added
  in place: no products, and no copies of them for the backward pass.
- Depthwise convolutions have the backward pass of `layers/depthwise.py`.

Each operation says how (`Operation.fuse`); where it does not, or where a user has changed its module, the module is
called as it is. B batch, C channels, H height, W width, E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from robust_nas.layers.inspection import has_hooks
from robust_nas.operations import OPERATIONS
from robust_nas.operations.fused_terms import State, WeightedModule, add_modules


def reference_forward(cell: nn.Module, edges: nn.ModuleList, kinds: tuple[type, type]) -> bool:
    """Return whether a cell has to run its own forward: a user has hooked or replaced it or one of its edges.

    `kinds` are the classes that cell and edges were built of. Changes further inside are met operation by operation.
    """
    return (
        type(cell) is not kinds[0]
        or any(map(has_hooks, [cell, edges]))
        or any(type(edge) is not kinds[1] or has_hooks(edge) for edge in edges)
    )


def fused_nodes(
    states: list[Tensor],
    ends: Sequence[tuple[int, int]],
    edges: Iterable[nn.Module],
    operations: Sequence[str],
    edge_weights: Tensor,
    number: int,
) -> list[Tensor]:
    """Return the outputs `[B, C, H', W']` of the nodes of a cell.

    `states` are the cell's inputs `[B, C, H, W]`, `ends` are (node, source) of every edge, `edges` the candidates `[E]`
    `[O]`, `edge_weights` is `[E, O]`, `number` that of the nodes. Sources count the inputs first.
    """
    states, inputs = list(states), len(states)
    totals: list[Tensor | None] = [None] * number
    columns = list(zip(ends, edges, edge_weights.unbind(), strict=True))
    for source in range(inputs + number - 1):
        state = State(states[source])
        leaving = [
            (node, cast(Any, modules), weights.unbind())
            for (node, start), modules, weights in columns
            if start == source
        ]
        for index, name in enumerate(operations if leaving else ()):
            operation = OPERATIONS.get(name)
            column = [
                WeightedModule(node, modules[index], weights[index]) for node, modules, weights in leaving
            ]
            known = all(operation.knows(term.module) for term in column)
            (operation.fuse if known else add_modules)(state, column, totals)
        if source >= inputs - 1:  # the node after this source has all its terms
            states.append(cast(Tensor, totals[source - inputs + 1]))
    return [_Dense.apply(state) for state in states[inputs:]]  # type: ignore[no-untyped-call]


class _Dense(torch.autograd.Function):
    """The identity; its gradient, a slice of the concatenation's, gets memory of its own: batch norm wants it so."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous(memory_format=torch.channels_last)
