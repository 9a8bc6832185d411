"""The supernet of PC-DARTS (Xu et al., ICLR 2020): operations see a part of the channels, edges have a weight.

    edge(x) = beta_e shuffle([sum_o softmax(alpha_e)_o o(x[:c]),  x[c:]]),    c = C / k

with beta = softmax over the edges into a node. The rest x[c:] of a strided edge is its 2x2 max pooling; an odd side is
rounded up (ours), as the operations do. The shuffle, which follows each edge, is the same for all of them: `fused` adds
the edges first, and pools the rest of a source once.

Edge weights `[E, O + 1]` are those of the operations, beta_e softmax(alpha_e), and beta_e of the rest. B batch,
C channels, H height, W width, E edges, O operations.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from robust_nas.errors import ConfigError
from robust_nas.nets.build import seeded
from robust_nas.nets.folded_partial import FoldedPartialCell
from robust_nas.nets.fused import FusedEdges, dense_gradient, reference_forward
from robust_nas.nets.network import Skeleton
from robust_nas.nets.partial_channels import rest_of, shuffled
from robust_nas.nets.supernet import MixedOperation, Supernet, SupernetCell
from robust_nas.operations.fused_terms import added_scaled
from robust_nas.spaces import CellArchitecture, CellPlace, CellSpace


class PartialCell(SupernetCell):
    """A cell whose operations see the first of `k` parts of the channels."""

    def __init__(self, place: CellPlace, space: CellSpace, skeleton: Skeleton, k: int) -> None:
        if place.c % k:
            raise ConfigError(
                f"search.channels: a cell has {place.c} channels, which search.k = {k} does not divide; "
                f"allowed: a multiple of {k} for all cells, or another search.k"
            )
        super().__init__(place, space, skeleton, place.c // k)
        self.width = place.c // k

    def on_edge(self, edge: int, x: Tensor, weights: Tensor) -> Tensor:
        """Return what an edge gives of its source `[B, C, H, W]` with weights `[O + 1]`."""
        mixed = self.edges[edge](x[:, : self.width], weights)
        rest = rest_of(x, self.width, self._strided(self.ends[edge][1]))
        return shuffled(mixed, weights[-1] * rest)

    def fused(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        """Compute the same as `forward`, faster."""
        states = self._adapted(s0, s1)
        edges = FusedEdges(self.ends, self.edges, self.operations, weights[:, :-1])
        of_rest = weights[:, -1].unbind()
        totals: list[Tensor | None] = [None] * self.num_nodes
        rests: list[Tensor | None] = [None] * self.num_nodes
        for source in range(self.inputs + self.num_nodes - 1):
            x = states[source]
            edges.add(source, x[:, : self.width].contiguous(memory_format=torch.channels_last), totals)
            rest = rest_of(x, self.width, self._strided(source))
            for edge, (node, start) in enumerate(self.ends):
                if start == source:
                    rests[node] = added_scaled(rests[node], rest, of_rest[edge])
            node = source - self.inputs + 1
            if node >= 0:  # it has all its terms
                total = dense_gradient(cast(Tensor, totals[node]))
                states.append(shuffled(total, cast(Tensor, rests[node])))
        return self._joined(states[self.inputs :])

    def fold(self, weights: Tensor) -> FoldedPartialCell:
        """Return the cell in eval mode as constants."""
        return FoldedPartialCell.of(
            self._adapters(weights.dtype),
            self.ends,
            self.edges,
            self.operations,
            weights,
            self.width,
            [self._strided(source) for source in range(self.inputs + self.num_nodes - 1)],
            self.output,
        )

    def _strided(self, source: int) -> bool:
        return self.reduction and source < self.inputs

    def changed(self) -> bool:
        """Return whether a user has replaced or hooked the cell or one of its edges."""
        return reference_forward(self, self.edges, (PartialCell, MixedOperation))


class PartialSupernet(Supernet):
    """A supernet with partial channels and edge weights; `betas[kind]` is `[E]`, softmax over the edges of a node.

    Raises `ConfigError` where `k` does not divide the channels of a cell.
    """

    def __init__(self, space: CellSpace, *arguments: Any, k: int = 4, seed: int = 0, **options: Any) -> None:
        super().__init__(space, *arguments, cell=partial(PartialCell, k=k), seed=seed, **options)
        self.k = k
        with seeded(seed):
            self.betas = nn.ParameterDict(
                {kind: nn.Parameter(1e-3 * torch.randn(len(space.edges))) for kind in space.kinds}
            )

    def weights(self) -> list[nn.Parameter]:
        """Return every parameter but alphas and betas, in the order of `named_parameters`."""
        betas = {id(beta) for beta in self.betas.values()}
        return [parameter for parameter in super().weights() if id(parameter) not in betas]

    def edge_weights(self) -> dict[str, Tensor]:
        """Return the weights `[E, O + 1]` of operations and rest per kind; a node is a mean of its edges already."""
        found = {}
        for kind, alpha in self.alphas.items():
            share = node_softmax(self.space, self.betas[kind])[:, None]
            found[kind] = torch.cat([share * alpha.softmax(dim=1), share], dim=1)
        return found

    def derive(self, name: str = "derived") -> CellArchitecture:
        """Return the architecture by DARTS's rule on beta softmax(alpha), at the space's final size."""
        weights = self.edge_weights()
        genotype = {kind: self.derive_nodes(rows.detach()[:, :-1]) for kind, rows in weights.items()}
        return self.space.architecture(name, genotype)


def node_softmax(space: CellSpace, beta: Tensor) -> Tensor:
    """Return the softmax `[E]` of `beta` over the edges into each node."""
    return torch.cat(shares_of_sources(space, beta))


def shares_of_sources(space: CellSpace, beta: Tensor) -> list[Tensor]:
    """Return that softmax as one vector for each node, by source."""
    ends = [node for node, _ in space.edges]
    parts = torch.split(beta, [ends.count(node) for node in range(space.nodes)])
    return [part.softmax(0) for part in parts]
