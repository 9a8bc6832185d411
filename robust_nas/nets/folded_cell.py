"""A cell of the supernet in eval mode, folded for input gradients alone.

Behind the last depthwise convolution of an operation everything is linear: pointwise convolution, batch norm, the
edge weight, and the sums over operations and edges. So a node is

    bias + sum over edges of their terms          (`operations/folded_terms.py`; each operation says its own)

and a term is often one matrix product that adds to the node in place. ReLU and poolings are computed once for each
state, not for each edge. The backward pass is written out, but for operations without a fold of their own.

B batch, C channels, H height, W width, P = B H W pixels, N nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_nas.layers.batch_norm import refuse_second_derivative
from robust_nas.layers.depthwise import subsample
from robust_nas.operations.folded_terms import SourceGradient, SourceState, Term, image, matrix


@dataclass
class FoldedCell:
    """The terms of a cell as constants, by source, each with its node; and a bias `[C]` per node.

    The first `inputs` sources are the cell's inputs; their edges are strided where the cell reduces.
    """

    sources: list[list[tuple[int, Term]]]
    biases: list[Tensor]
    reduction: bool
    inputs: int

    def stride(self, source: int) -> int:
        """Return the stride of the edges that leave a source."""
        return 2 if self.reduction and source < self.inputs else 1


def folded_nodes(states: list[Tensor], cell: FoldedCell) -> Tensor:
    """Map the inputs `[B, C, H, W]` of a cell to its nodes `[B, N C, H', W']`; gradients for the inputs alone."""
    out: Tensor = _Cell.apply(cell, *states)  # type: ignore[no-untyped-call]
    return out


class _Cell(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cell: FoldedCell, *inputs: Tensor) -> Tensor:
        states = list(inputs)
        small = subsample(inputs[0]) if cell.reduction else inputs[0]
        nodes = [bias.expand(small.numel() // len(bias), -1).clone() for bias in cell.biases]
        kept: list[Tensor] = []  # what the backward pass needs, source after source
        ctx.cell, ctx.parts, ctx.graphs = cell, [], []
        for source, terms in enumerate(cell.sources):
            state = SourceState(states[source], cell.stride(source), any(ctx.needs_input_grad))
            for node, term in terms:
                term.add(nodes[node], state)
            own = [state.r, *state.kept] if state.indices is None else [state.r, *state.kept, state.indices]
            ctx.parts.append((len(own), state.indices is not None))
            ctx.graphs.append(state.graphs)
            kept += own
            if source >= cell.inputs - 1:  # the node after this source has all its terms
                states.append(image(nodes[source - cell.inputs + 1], small))
        ctx.save_for_backward(*kept)
        return torch.cat(states[cell.inputs :], dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("a folded supernet")
        cell: FoldedCell = ctx.cell
        kept = list(ctx.saved_tensors)
        channels = len(cell.biases[0])
        # Those of the nodes are complete when their own source has been gone through: `finish` adds in their memory.
        own = [matrix(part).clone() for part in torch.split(gradient, channels, dim=1)]
        nodes = [image(g, gradient[:, :channels]) for g in own]
        states: list[Tensor | None] = [*[None] * cell.inputs, *own]
        maps = []
        for source in reversed(range(len(cell.sources))):
            count, pooled = ctx.parts[source]
            kept, part = kept[: len(kept) - count], kept[len(kept) - count :]
            indices = part.pop() if pooled else None
            to = SourceGradient(states[source], part[0], cell.stride(source), part[1:], ctx.graphs[source])
            for node, term in cell.sources[source]:
                term.add_gradient(matrix(nodes[node]), nodes[node], to)
            found = to.finish(nodes[0], indices)
            if source < cell.inputs:
                maps.append(image(found, part[0]))
        return (None, *reversed(maps))
