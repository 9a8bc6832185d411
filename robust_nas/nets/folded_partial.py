"""A cell of PC-DARTS's supernet (`partial_supernet.py`) in eval mode, folded for input gradients alone.

The terms of one source are a function of their own, because the states between them are shuffled with channels that
no operation sees. B batch, C channels, H height, W width, P pixels, E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from robust_nas.layers.batch_norm import refuse_second_derivative
from robust_nas.layers.depthwise import subsample
from robust_nas.nets.folded import Adapter, Output, fold_cell
from robust_nas.nets.partial_channels import rest_of, shuffled
from robust_nas.operations.folded_terms import SourceGradient, SourceState, Term, image, matrix


@dataclass
class FoldedPartialCell:
    """The terms of a cell as constants, by source, each with its node; a bias `[C / k]` per node; `rests` are weights.

    `rests` hold (node, weight) of every edge that leaves a source; `strided` says it of every source.
    """

    adapters: list[Adapter]
    sources: list[list[tuple[int, Term]]]
    biases: list[Tensor]
    rests: list[list[tuple[int, Tensor]]]
    strided: list[bool]
    output: tuple[int, ...]

    @classmethod
    def of(
        cls,
        adapters: list[Adapter],
        ends: Sequence[tuple[int, int]],
        edges: Iterable[nn.Module],
        operations: Sequence[str],
        edge_weights: Tensor,
        width: int,
        strided: list[bool],
        output: tuple[int, ...],
    ) -> FoldedPartialCell:
        """Return the folded form of a cell: `ends` are (node, source) of every edge, `edge_weights` is `[E, O + 1]`."""
        inputs = len(adapters)
        cell = fold_cell(ends, edges, operations, edge_weights[:, :-1], width, any(strided), inputs)
        rests: list[list[tuple[int, Tensor]]] = [[] for _ in strided]
        for (node, source), weight in zip(ends, edge_weights[:, -1].clone(), strict=True):
            rests[source].append((node, weight))
        return cls(adapters, cell.sources, cell.biases, rests, strided, output)

    def __call__(self, outputs: list[Output]) -> Tensor:
        """Map the outputs of the stem and of all cells before to `[B, C', H', W']`."""
        inputs, width = len(self.adapters), len(self.biases[0])
        seen = zip(self.adapters, outputs[-inputs:], strict=True)
        states = [adapter(output) for adapter, output in seen]
        totals = [bias[:, None, None] for bias in self.biases]
        rests: list[Tensor | None] = [None] * len(totals)
        for source, strided in enumerate(self.strided):
            x = states[source]
            rest = rest_of(x, width, strided)
            for node, weight in self.rests[source]:
                term, before = weight * rest, rests[node]
                rests[node] = term if before is None else before + term
            part = x[:, :width].contiguous(memory_format=torch.channels_last)
            for node, term in _terms(part, self.sources[source], 2 if strided else 1).items():
                totals[node] = totals[node] + term
            node = source - inputs + 1
            if node >= 0:  # it has all its terms
                rest = cast(Tensor, rests[node])
                whole = totals[node].expand(len(rest), -1, *rest.shape[2:])  # a bias alone where no term is
                states.append(shuffled(whole, rest))
        return torch.cat([states[inputs + node] for node in self.output], dim=1)


def _terms(x: Tensor, terms: list[tuple[int, Term]], stride: int) -> dict[int, Tensor]:
    """Return the sum `[B, C / k, H', W']` of the terms of one source for each node that has one."""
    nodes = sorted({node for node, _ in terms})
    if not nodes:  # each of its edges gives zeros
        return {}
    found = cast("tuple[Tensor, ...]", _Source.apply(x, terms, nodes, stride))  # type: ignore[no-untyped-call]
    return dict(zip(nodes, found, strict=True))


class _Source(torch.autograd.Function):
    """The terms of one source `[B, C, H, W]`, added up for each of `nodes`; gradients for the source alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, terms: list[tuple[int, Term]], nodes: list[int], stride: int
    ) -> tuple[Tensor, ...]:
        state = SourceState(x, stride, ctx.needs_input_grad[0])
        small = subsample(x) if stride == 2 else x
        found = {node: x.new_zeros(small.numel() // small.shape[1], x.shape[1]) for node in nodes}
        for node, term in terms:
            term.add(found[node], state)
        pooled = [] if state.indices is None else [state.indices]
        ctx.save_for_backward(state.r, *pooled, *state.kept)
        ctx.terms, ctx.nodes, ctx.stride = terms, nodes, stride
        ctx.pooled, ctx.graphs = bool(pooled), state.graphs
        return tuple(image(found[node], small) for node in nodes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("a folded supernet")
        r, *kept = ctx.saved_tensors
        indices = kept.pop(0) if ctx.pooled else None
        to = SourceGradient(None, r, ctx.stride, kept, ctx.graphs)
        dense = [g.contiguous(memory_format=torch.channels_last) for g in gradients]
        of = dict(zip(ctx.nodes, dense, strict=True))
        for node, term in ctx.terms:
            term.add_gradient(matrix(of[node]), of[node], to)
        return image(to.finish(dense[0], indices), r), None, None, None
