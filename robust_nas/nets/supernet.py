"""The supernet: every edge is a mixture of all candidate operations, weighted by softmax(alpha) (DARTS).

    edge(x) = sum_o softmax(alpha_e)_o * o(x)

Alphas are shared by all cells of a kind, weights are not. `SupernetCell` says it plainly, and is the reference that the
faster forms of `fused.py` and `folded.py` are held against. E edges of a cell, O operations, B batch, K classes.
"""

from __future__ import annotations

import copy
from typing import Literal, cast

import torch
from torch import Tensor, nn

from robust_nas.errors import ConfigError
from robust_nas.layers.batch_norm import NORMS
from robust_nas.layers.factorised_reduction import FactorizedReduce
from robust_nas.layers.inspection import has_hooks
from robust_nas.layers.norm_folding import fold_norm
from robust_nas.layers.normalise import Normalise
from robust_nas.layers.relu_conv_bn import ReLUConvBN
from robust_nas.nets.build import seeded
from robust_nas.nets.folded import AdaptedCell, FoldedParts, FoldedSupernet, fold_adapter, fold_cell
from robust_nas.nets.fused import fused_nodes, reference_forward
from robust_nas.operations import OPERATIONS
from robust_nas.spaces import CellArchitecture, CellPlace, CellSpace, Edge


class MixedOperation(nn.ModuleList):
    """The weighted sum of all candidate operations on one edge."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """`[B, C, H, W]` and `[O]` to `[B, C, H', W']`."""
        # By index, because torch.fx, which folds the supernet for attacks, cannot iterate over a tensor.
        terms: list[Tensor] = [weights[index] * operation(x) for index, operation in enumerate(self)]
        return sum(terms[1:], terms[0])


class SupernetCell(nn.Module):
    """A cell in which every node takes every earlier state through a mixed operation."""

    def __init__(self, place: CellPlace, space: CellSpace) -> None:
        super().__init__()
        adapt = FactorizedReduce if place.reduction_prev else ReLUConvBN
        self.kind = place.kind
        self.preprocess0 = adapt(place.c_pp, place.c, affine=False)
        self.preprocess1 = ReLUConvBN(place.c_p, place.c, affine=False)
        self.edges = nn.ModuleList(
            MixedOperation(
                OPERATIONS.get(operation).candidate(place.c, 2 if place.reduction and source < 2 else 1)
                for operation in space.operations
            )
            for _, source in space.edges
        )
        self.num_nodes, self.channels, self.reduction = space.nodes, place.c, place.reduction
        self.ends, self.operations = space.edges, space.operations  # (node, source) of every edge

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        """Outputs of the two cells before and weights `[E, O]`, to `[B, nodes * c, H', W']`."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        edge = 0
        for _ in range(self.num_nodes):
            terms = [
                self.edges[edge + index](state, weights[edge + index]) for index, state in enumerate(states)
            ]
            edge += len(states)
            states.append(sum(terms[1:], terms[0]))
        return torch.cat(states[2:], dim=1)

    def fused(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        """Compute the same as `forward`, faster."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        return torch.cat(
            fused_nodes(states, self.ends, self.edges, self.operations, weights, self.num_nodes), dim=1
        )

    def fold(self, weights: Tensor) -> AdaptedCell:
        """Return the cell in eval mode as constants."""
        adapters = [fold_adapter(module, weights.dtype) for module in (self.preprocess0, self.preprocess1)]
        cell = fold_cell(self.ends, self.edges, self.operations, weights, self.channels, self.reduction)
        return AdaptedCell(adapters, cell)

    def changed(self) -> bool:
        """Return whether a user has replaced or hooked the cell or one of its edges: `fused` would not see it."""
        return reference_forward(self, self.edges, (SupernetCell, MixedOperation))


class Supernet(nn.Module):
    """All architectures of a space at once; `alphas[kind]` is `[E, O]`, `forward` gives logits `[B, K]`.

    `cells` and `channels` are DARTS's search size unless told otherwise. Weights and alphas (1e-3 times a standard
    normal, as in DARTS) are drawn from `seed`.
    """

    def __init__(
        self,
        space: CellSpace,
        num_classes: int = 10,
        in_channels: int = 3,
        channels: int = 16,
        cells: int = 8,
        *,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        seed: int = 0,
        execution: Literal["fused", "plain"] = "fused",
    ) -> None:
        super().__init__()
        if execution not in ("fused", "plain"):
            raise ConfigError(f"supernet.execution: got {execution!r}; allowed: fused, plain")
        self.space, self.execution = space, execution
        concat = dict.fromkeys(space.layout.kinds, space.nodes)
        places = list(space.layout.places(cells, channels, concat))
        stem = places[0].c_p
        with seeded(seed):
            self.normalise = Normalise(mean or (0.0,) * in_channels, std or (1.0,) * in_channels)
            self.stem = nn.Sequential(
                nn.Conv2d(in_channels, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem)
            )
            self.cells = nn.ModuleList(SupernetCell(place, space) for place in places)
            self.classifier = nn.Linear(places[-1].c * space.nodes, num_classes)
            shape = (len(space.edges), len(space.operations))
            self.alphas = nn.ParameterDict(
                {kind: nn.Parameter(1e-3 * torch.randn(shape)) for kind in space.layout.kinds}
            )

    def weights(self) -> list[nn.Parameter]:
        """Every parameter but the alphas, in the order of `named_parameters`."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("alphas.")]

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, C, H, W]` in 0..1 to logits `[B, K]`."""
        edge_weights = {kind: alpha.softmax(dim=1) for kind, alpha in self.alphas.items()}
        s0 = s1 = self.stem(self.normalise(x))
        for cell in cast("list[SupernetCell]", self.cells):
            plain = self.execution == "plain" or cell.changed()
            weights = edge_weights[cell.kind]
            s0, s1 = s1, cell(s0, s1, weights) if plain else cell.fused(s0, s1, weights)
        logits: Tensor = self.classifier(s1.mean((2, 3)))
        return logits

    def folded(self) -> FoldedSupernet | None:
        """Return a copy for attacks: in eval mode, with the present weights and alphas.

        Who changes them calls `refresh(supernet)` of the copy. None where execution is plain, where a user has hooked
        anything inside, or replaced more than candidates on edges.
        """
        outside = [self.normalise, self.classifier, *self.stem]
        kinds = [type(module) for module in outside[:-1]] + [type(outside[-1]) in NORMS]
        known = kinds == [Normalise, nn.Linear, nn.Conv2d, True]
        if self.execution == "plain" or not known or any(map(has_hooks, self.modules())):
            return None
        cells = cast("list[SupernetCell]", self.cells)
        return None if any(cell.changed() for cell in cells) else FoldedSupernet(self)

    def fold(self) -> FoldedParts:
        """Return the present weights, statistics and alphas as constants."""
        edge_weights = {kind: alpha.softmax(dim=1) for kind, alpha in self.alphas.items()}
        convolution, norm = self.stem
        return FoldedParts(
            normalise=copy.deepcopy(self.normalise).eval(),
            stem=fold_norm(cast(nn.Conv2d, convolution), cast(nn.BatchNorm2d, norm)),
            cells=[cell.fold(edge_weights[cell.kind]) for cell in cast("list[SupernetCell]", self.cells)],
            classifier=(self.classifier.weight.clone(), self.classifier.bias.clone()),
        )

    def derive(self, name: str = "derived") -> CellArchitecture:
        """The architecture by DARTS's rule, at the space's final size.

        Per node, the edges with the largest weight of their best operation are kept, with that operation; ties go to
        the earlier source and the earlier operation.
        """
        genotype = {
            kind: self.derive_nodes(alpha.detach().softmax(dim=1)) for kind, alpha in self.alphas.items()
        }
        return self.space.architecture(name, genotype)

    def derive_nodes(self, edge_weights: Tensor) -> list[list[Edge]]:
        """The kept edges of every node, by source, for edge weights `[E, O]` of one kind."""
        best, choice = (values.tolist() for values in edge_weights.cpu().max(dim=1))
        nodes: list[list[Edge]] = [[] for _ in range(self.space.nodes)]
        candidates: list[list[tuple[float, Edge]]] = [[] for _ in nodes]
        for (node, source), weight, index in zip(self.space.edges, best, choice, strict=True):
            candidates[node].append((weight, Edge(self.space.operations[index], source)))
        for node, found in enumerate(candidates):
            strongest = sorted(found, key=lambda pair: -pair[0])[: self.space.edges_per_node]
            nodes[node] = sorted((edge for _, edge in strongest), key=lambda edge: edge.source)
        return nodes
