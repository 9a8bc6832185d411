"""A cell of the supernet with all gradients, the same function as `SupernetCell.forward`, faster.

What makes it faster, none of it an approximation (`docs/benchmarks/supernet.md`):

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


class FusedEdges:
    """The candidates on all edges of a cell with their weights, which `add` brings to the nodes source by source.

    `ends` are (node, source) of every edge, `edges` the candidates `[E]` `[O]`, `edge_weights` is `[E, O]`. With
    `chosen` `[E]`, one operation an edge is computed, the others are left out. Sources count the inputs first.
    """

    def __init__(
        self,
        ends: Sequence[tuple[int, int]],
        edges: Iterable[nn.Module],
        operations: Sequence[str],
        edge_weights: Tensor,
        chosen: Sequence[int] | None = None,
    ) -> None:
        self.operations = operations
        every = range(len(operations))
        computed = [every] * len(ends) if chosen is None else [(index,) for index in chosen]
        self.columns = list(zip(ends, edges, edge_weights.unbind(), computed, strict=True))

    def add(self, source: int, x: Tensor, totals: list[Tensor | None]) -> None:
        """Add to the `totals` of the nodes what the edges that leave a source with state `x` give."""
        state = State(x)
        leaving = [
            (node, cast(Any, modules), weights.unbind(), computed)
            for (node, start), modules, weights, computed in self.columns
            if start == source
        ]
        for index, name in enumerate(self.operations if leaving else ()):
            operation = OPERATIONS.get(name)
            column = [
                WeightedModule(node, modules[index], weights[index])
                for node, modules, weights, computed in leaving
                if index in computed
            ]
            if column:
                known = all(operation.knows(term.module) for term in column)
                (operation.fuse if known else add_modules)(state, column, totals)


def fused_nodes(states: list[Tensor], edges: FusedEdges, number: int) -> list[Tensor]:
    """Return the outputs `[B, C, H', W']` of the nodes of a cell, `number` of them.

    `states` are the cell's inputs `[B, C, H, W]`.
    """
    states, inputs = list(states), len(states)
    totals: list[Tensor | None] = [None] * number
    for source in range(inputs + number - 1):
        edges.add(source, states[source], totals)
        if source >= inputs - 1:  # the node after this source has all its terms
            states.append(cast(Tensor, totals[source - inputs + 1]))
    return [dense_gradient(state) for state in states[inputs:]]


def dense_gradient(x: Tensor) -> Tensor:
    """Return `x`, whose gradient, where it is a slice of another's, gets memory of its own: batch norm wants it so."""
    return cast(Tensor, _Dense.apply(x))  # type: ignore[no-untyped-call]


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous(memory_format=torch.channels_last)
