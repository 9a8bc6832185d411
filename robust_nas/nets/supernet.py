"""The supernet: every edge is a mixture of all candidate operations, weighted by softmax(alpha) (DARTS).

    edge(x) = sum_o softmax(alpha_e)_o * o(x)

Alphas are shared by all cells of a kind, weights are not. `SupernetCell` says it plainly, and is the reference that the
faster forms of `fused.py` and `folded.py` are held against. E edges of a cell, O operations, B batch, K classes.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from robust_nas.errors import ConfigError
from robust_nas.layers.normalise import Normalise
from robust_nas.nets.build import seeded
from robust_nas.nets.folded import FoldedSupernet
from robust_nas.nets.fused import NORMS, as_built, fused_cell, has_hooks
from robust_nas.nets.network import Skeleton, aggregate
from robust_nas.nets.operations import OPERATIONS
from robust_nas.spaces import CellArchitecture, CellPlace, CellSpace, Edge, Size, Topology


def candidate(operation: str, channels: int, stride: int) -> nn.Module:
    """Return an operation as the supernet has it: batch norm without scale, and one behind every pooling."""
    module = OPERATIONS[operation](channels, stride, False)
    pooling = operation in ("max_pool_3x3", "avg_pool_3x3")
    return nn.Sequential(module, nn.BatchNorm2d(channels, affine=False)) if pooling else module


class MixedOperation(nn.ModuleList):
    """The weighted sum of all candidate operations on one edge."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return `[B, C, H', W']` of `[B, C, H, W]` and weights `[O]`."""
        # By index, because torch.fx, which folds the supernet for attacks, cannot iterate over a tensor.
        terms: list[Tensor] = [weights[index] * operation(x) for index, operation in enumerate(self)]
        return sum(terms[1:], terms[0])


class SupernetCell(nn.Module):
    """A cell in which every node takes all its possible sources through a mixed operation."""

    def __init__(self, place: CellPlace, space: CellSpace, skeleton: Skeleton) -> None:
        super().__init__()
        self.kind = place.kind
        *first, last = skeleton.adapters(place, space.topology.inputs, affine=False)
        self.preprocess0 = first[0] if first else None
        self.preprocess1 = last
        self.edges = nn.ModuleList(
            MixedOperation(
                candidate(
                    operation, place.c, 2 if place.reduction and source < space.topology.inputs else 1
                )
                for operation in space.operations
            )
            for _, source in space.edges
        )
        self.num_nodes, self.channels, self.reduction = space.nodes, place.c, place.reduction
        self.ends, self.operations = space.edges, space.operations  # (node, source) of every edge
        self.output, self.aggregation = space.output, space.topology.aggregation

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        """Return `[B, outputs * c, H', W']` from the outputs of the two cells before and weights `[E, O]`."""
        states = [] if self.preprocess0 is None else [self.preprocess0(s0)]
        states.append(self.preprocess1(s1))
        for number in range(self.num_nodes):
            terms = [
                self.edges[edge](states[source], weights[edge])
                for edge, (node, source) in enumerate(self.ends)
                if node == number
            ]
            states.append(aggregate(terms, self.aggregation))
        return torch.cat([states[index] for index in self.output], dim=1)


class Supernet(nn.Module):
    """All architectures of a space at once; `alphas[kind]` is `[E, O]`, `forward` gives logits `[B, K]`.

    `cells` and `channels` default to DARTS's search size. Weights and alphas (1e-3 times a standard normal, as in DARTS)
    are drawn from `seed`. Where the topology is not DARTS's, every form but the plain one is left out.
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
        skeleton: Skeleton = space.family.skeleton_class()()
        self.has_fast_forms = space.topology == Topology() and type(skeleton) is Skeleton
        places = space.places(Size(cells=cells, channels=channels))
        stem = places[0].c_p
        with seeded(seed):
            self.normalise = Normalise(mean or (0.0,) * in_channels, std or (1.0,) * in_channels)
            self.stem = nn.Sequential(
                nn.Conv2d(in_channels, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem)
            )
            self.cells = nn.ModuleList(SupernetCell(place, space, skeleton) for place in places)
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

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, K]` of images `[B, C, H, W]` in 0..1."""
        mixing = {kind: alpha.softmax(dim=1) for kind, alpha in self.alphas.items()}
        s0 = s1 = self.stem(self.normalise(x))
        for cell in cast("list[SupernetCell]", self.cells):
            fused = self.execution == "fused" and self.has_fast_forms and as_built(cell)
            weights = mixing[cell.kind]
            s0, s1 = s1, fused_cell(cell, s0, s1, weights) if fused else cell(s0, s1, weights)
        logits: Tensor = self.classifier(self.before_pooling(s1).mean((2, 3)))
        return logits

    def folded(self) -> FoldedSupernet | None:
        """Return a copy for attacks: in eval mode, with the weights and alphas of now.

        None where execution is plain, where topology or skeleton are not DARTS's, and where a user has changed or hooked
        what the supernet was built of.
        """
        if not self.has_fast_forms:
            return None
        outside = [self.normalise, self.classifier, *self.stem]
        kinds = [type(module) for module in outside[:-1]] + [type(outside[-1]) in NORMS]
        known = kinds == [Normalise, nn.Linear, nn.Conv2d, True]
        if self.execution == "plain" or not known or any(map(has_hooks, [self, self.stem, *outside])):
            return None
        cells = cast("list[SupernetCell]", self.cells)
        return FoldedSupernet(self) if all(map(as_built, cells)) else None

    def derive(self, name: str = "derived") -> CellArchitecture:
        """Return the architecture by DARTS's rule, at the space's final size.

        Per node, the edges with the largest weight of their best operation are kept, with that operation; ties go to
        the earlier source and the earlier operation.
        """
        genotype = {
            kind: self.derive_nodes(alpha.detach().softmax(dim=1)) for kind, alpha in self.alphas.items()
        }
        return self.space.architecture(name, genotype)

    def derive_nodes(self, mixing: Tensor) -> list[list[Edge]]:
        """Return the kept edges of every node, by source, for mixing weights `[E, O]` of one kind."""
        best, choice = (values.tolist() for values in mixing.cpu().max(dim=1))
        nodes: list[list[Edge]] = [[] for _ in range(self.space.nodes)]
        candidates: list[list[tuple[float, Edge]]] = [[] for _ in nodes]
        for (node, source), weight, index in zip(self.space.edges, best, choice, strict=True):
            candidates[node].append((weight, Edge(self.space.operations[index], source)))
        for node, found in enumerate(candidates):
            strongest = sorted(found, key=lambda pair: -pair[0])[: self.space.kept(node)]
            nodes[node] = sorted((edge for _, edge in strongest), key=lambda edge: edge.source)
        return nodes
