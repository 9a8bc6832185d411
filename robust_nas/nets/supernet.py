"""The supernet: every edge is a mixture of all candidate operations, weighted by softmax(alpha) (DARTS).

    edge(x) = sum_o softmax(alpha_e)_o * o(x)

Alphas are shared by all cells of a kind, weights are not. `SupernetCell` says it plainly, and is the reference that the
faster forms of `fused.py` and `folded.py` are held against. E edges of a cell, O operations, B batch, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from robust_nas.errors import ConfigError
from robust_nas.layers.batch_norm import NORMS
from robust_nas.layers.inspection import has_hooks
from robust_nas.layers.norm_folding import fold_norm
from robust_nas.layers.normalise import Normalise
from robust_nas.layers.self_folding import SelfFolding
from robust_nas.nets.build import seeded
from robust_nas.nets.folded import (
    AdaptedCell,
    Adapter,
    FoldedParts,
    FoldedSupernet,
    Output,
    fold_adapter,
    fold_cell,
)
from robust_nas.nets.fused import FusedEdges, fused_nodes, reference_forward
from robust_nas.nets.network import Skeleton, cuts
from robust_nas.operations import OPERATIONS
from robust_nas.spaces import CellArchitecture, CellPlace, CellSpace, Edge, Size


class MixedOperation(nn.ModuleList):
    """The weighted sum of all candidate operations on one edge, or of one of them."""

    def forward(self, x: Tensor, weights: Tensor, only: int | None = None) -> Tensor:
        """Return `[B, C, H', W']` of `[B, C, H, W]` and weights `[O]`; with `only`, of that operation alone."""
        # By index, because torch.fx, which folds the supernet for attacks, cannot iterate over a tensor.
        terms: list[Tensor] = [
            weights[index] * operation(x) for index, operation in enumerate(self) if only in (None, index)
        ]
        return sum(terms[1:], terms[0])


class SupernetCell(nn.Module):
    """A cell in which every node takes all its possible sources through mixed operations, and adds them.

    `width` is the number of channels that the operations compute, those of the cell where it is None. `chosen` `[E]`
    limits every edge to one operation; None: all.
    """

    def __init__(
        self, place: CellPlace, space: CellSpace, skeleton: Skeleton, width: int | None = None
    ) -> None:
        super().__init__()
        self.kind, self.inputs = place.kind, space.topology.inputs
        self.chosen: Sequence[int] | None = None
        *first, last = skeleton.adapters(place, self.inputs, affine=False)
        self.preprocess0 = first[0] if first else None
        self.preprocess1 = last
        self.edges = nn.ModuleList(
            MixedOperation(
                OPERATIONS.get(operation).candidate(
                    width or place.c, 2 if place.reduction and source < self.inputs else 1
                )
                for operation in space.operations
            )
            for _, source in space.edges
        )
        self.num_nodes, self.channels, self.reduction = space.nodes, place.c, place.reduction
        self.ends, self.operations = space.edges, space.operations  # (node, source) of every edge
        self.output = tuple(state - self.inputs for state in space.output)  # the nodes that it gives

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        """Return `[B, outputs * c, H', W']` from the outputs of the two cells before and weights `[E, O]`."""
        states = self._adapted(s0, s1)
        for number in range(self.num_nodes):
            terms = [
                self.on_edge(edge, states[source], weights[edge])
                for edge, (node, source) in enumerate(self.ends)
                if node == number
            ]
            states.append(sum(terms[1:], terms[0]))
        return self._joined(states[self.inputs :])

    def on_edge(self, edge: int, x: Tensor, weights: Tensor) -> Tensor:
        """Return what an edge gives of its source `[B, C, H, W]` with weights `[O]`."""
        if self.chosen is None:
            return cast(Tensor, self.edges[edge](x, weights))
        return cast(Tensor, self.edges[edge](x, weights, self.chosen[edge]))

    def fused(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        """Compute the same as `forward`, faster."""
        edges = FusedEdges(self.ends, self.edges, self.operations, weights, self.chosen)
        return self._joined(fused_nodes(self._adapted(s0, s1), edges, self.num_nodes))

    def fold(self, weights: Tensor) -> Callable[[list[Output]], Tensor]:
        """Return the cell in eval mode as constants."""
        cell = fold_cell(
            self.ends,
            self.edges,
            self.operations,
            weights,
            self.channels,
            self.reduction,
            self.inputs,
            self.chosen,
        )
        whole = len(self.output) == self.num_nodes
        return AdaptedCell(self._adapters(weights.dtype), cell, None if whole else self.output)

    def _adapters(self, dtype: torch.dtype) -> list[Adapter]:
        modules = (self.preprocess0, self.preprocess1)
        return [fold_adapter(module, dtype) for module in modules if module is not None]

    def _adapted(self, s0: Tensor, s1: Tensor) -> list[Tensor]:
        states = [] if self.preprocess0 is None else [self.preprocess0(s0)]
        return [*states, self.preprocess1(s1)]

    def _joined(self, nodes: list[Tensor]) -> Tensor:
        return torch.cat([nodes[node] for node in self.output], dim=1)

    def changed(self) -> bool:
        """Return whether a user has replaced or hooked the cell or one of its edges: `fused` would not see it."""
        return reference_forward(self, self.edges, (SupernetCell, MixedOperation))


class Supernet(SelfFolding):
    """All architectures of a space at once; `alphas[kind]` is `[E, O]`, `forward` gives logits `[B, K]`.

    `cells` and `channels` default to DARTS's search size. Weights and alphas (1e-3 times a standard normal, as in
    DARTS) are drawn from `seed`.
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
        cell: Callable[[CellPlace, CellSpace, Skeleton], SupernetCell] = SupernetCell,
    ) -> None:
        super().__init__()
        if execution not in ("fused", "plain"):
            raise ConfigError(f"supernet.execution: got {execution!r}; allowed: fused, plain")
        self.space, self.execution = space, execution
        skeleton: Skeleton = space.family.skeleton_class()()
        places = space.places(Size(cells=cells, channels=channels))
        stem = places[0].c_p
        with seeded(seed):
            self.normalise = Normalise(mean or (0.0,) * in_channels, std or (1.0,) * in_channels)
            self.stem = nn.Sequential(
                nn.Conv2d(in_channels, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem)
            )
            self.cells = nn.ModuleList(cell(place, space, skeleton) for place in places)
            features = places[-1].c * len(space.output)
            self.before_pooling = skeleton.before_pooling(features)
            self.classifier = nn.Linear(features, num_classes)
            shape = (len(space.edges), len(space.operations))
            self.alphas = nn.ParameterDict(
                {kind: nn.Parameter(1e-3 * torch.randn(shape)) for kind in space.kinds}
            )

    def weights(self) -> list[nn.Parameter]:
        """Return every parameter but the alphas, in the order of `named_parameters`."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("alphas.")]

    def edge_weights(self) -> dict[str, Tensor]:
        """Return the weight `[E, O]` of every operation per kind, `aggregated`: softmax(alpha)."""
        return self.aggregated({kind: alpha.softmax(dim=1) for kind, alpha in self.alphas.items()})

    def aggregated(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return weights `[E, O]` as the sums of the cells want them: divided where nodes take a mean."""
        if self.space.topology.aggregation == "sum":
            return weights
        numbers = [[len(self.space.sources_of(node))] for node, _ in self.space.edges]
        return {kind: own / own.new_tensor(numbers) for kind, own in weights.items()}

    def mixing_points(self) -> list[list[tuple[nn.Module, int]]]:
        """Return for every cell the inputs of modules that cross the cut behind it; hooks on cells make them plain."""
        return cuts(list(self.cells), self.before_pooling)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, K]` of images `[B, C, H, W]` in 0..1."""
        return self.mixed(x, self.edge_weights())

    def mixed(self, x: Tensor, edge_weights: Mapping[str, Tensor]) -> Tensor:
        """Return the same where operations have these weights, `[E, O]` per kind, in the place of `edge_weights`."""
        s0 = s1 = self.stem(self.normalise(x))
        for cell in cast("list[SupernetCell]", self.cells):
            plain = self.execution == "plain" or cell.changed()
            weights = edge_weights[cell.kind]
            s0, s1 = s1, cell(s0, s1, weights) if plain else cell.fused(s0, s1, weights)
        logits: Tensor = self.classifier(self.before_pooling(s1).mean((2, 3)))
        return logits

    def folded(self) -> FoldedSupernet | None:
        """Return a copy for attacks: in eval mode, with the present weights and alphas.

        None where execution is plain, where a user has hooked anything inside, or replaced more than candidates on
        edges.
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
        edge_weights = self.edge_weights()
        last = self.before_pooling
        convolution, norm = self.stem
        return FoldedParts(
            normalise=copy.deepcopy(self.normalise).eval(),
            stem=fold_norm(cast(nn.Conv2d, convolution), cast(nn.BatchNorm2d, norm)),
            cells=[cell.fold(edge_weights[cell.kind]) for cell in cast("list[SupernetCell]", self.cells)],
            classifier=(self.classifier.weight.clone(), self.classifier.bias.clone()),
            last=None if isinstance(last, nn.Identity) else copy.deepcopy(last).eval().requires_grad_(False),
        )

    def derive(self, name: str = "derived") -> CellArchitecture:
        """Return the architecture by DARTS's rule, at the space's final size.

        Per node, the edges with the largest weight of their best operation are kept, with that operation; ties go to
        the earlier source and the earlier operation. `none` is chosen only where the space keeps all edges.
        """
        genotype = {
            kind: self.derive_nodes(alpha.detach().softmax(dim=1)) for kind, alpha in self.alphas.items()
        }
        return self.space.architecture(name, genotype)

    def derive_nodes(self, edge_weights: Tensor, edges: Tensor | None = None) -> list[list[Edge]]:
        """Return the kept edges of every node, by source, for edge weights `[E, O]` of one kind.

        Edges are kept by the weight of their best operation, or by `edges` `[E]`. The weights may be any numbers.
        """
        edge_weights = edge_weights.cpu()
        if self.space.edges_per_node != "all":  # as in DARTS, a kept edge connects
            absent = [not OPERATIONS.get(name).connects for name in self.space.operations]
            edge_weights = edge_weights.masked_fill(torch.tensor(absent), -torch.inf)
        best, choice = (values.tolist() for values in edge_weights.max(dim=1))
        best = best if edges is None else edges.tolist()
        nodes: list[list[Edge]] = [[] for _ in range(self.space.nodes)]
        candidates: list[list[tuple[float, Edge]]] = [[] for _ in nodes]
        for (node, source), weight, index in zip(self.space.edges, best, choice, strict=True):
            candidates[node].append((weight, Edge(self.space.operations[index], source)))
        for node, found in enumerate(candidates):
            strongest = sorted(found, key=lambda pair: -pair[0])[: self.space.kept(node)]
            nodes[node] = sorted((edge for _, edge in strongest), key=lambda edge: edge.source)
        return nodes
