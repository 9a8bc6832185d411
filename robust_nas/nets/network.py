"""A network from an architecture: stem, cells, global average pooling, linear classifier.

Images are float `[B, C, H, W]` in 0..1; normalisation is the first layer. This file needs torch, layers and
`OPERATIONS` and `ACTIVATIONS` alone: the plain-Python export carries their text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robust_nas.layers.factorised_reduction import FactorizedReduce
from robust_nas.layers.normalise import Normalise
from robust_nas.layers.relu_conv_bn import ReLUConvBN
from robust_nas.layers.shared_activations import ActivationMaker
from robust_nas.operations import ACTIVATIONS, OPERATIONS


class CellPlan(NamedTuple):
    """One cell as plain numbers: channels of its inputs and nodes, strides, edges per node, output nodes, topology."""

    c_pp: int
    c_p: int
    c: int
    reduction: bool
    reduction_prev: bool
    nodes: tuple[tuple[tuple[str, int], ...], ...]
    concat: tuple[int, ...]
    inputs: int = 2
    aggregation: str = "sum"


def relu(channels: int) -> nn.Module:
    """Return the activation of a network without a choice of one."""
    return nn.ReLU()


class Skeleton:
    """What surrounds the cells: adapters of their inputs, and what precedes the pooling. DARTS's; others inherit."""

    def adapters(self, place: Any, inputs: int, affine: bool) -> list[nn.Module]:
        """Return a module for each input of a cell; `place` has its channels and strides (`CellPlan`, `CellPlace`)."""
        adapt = FactorizedReduce if place.reduction_prev else ReLUConvBN
        first = [adapt(place.c_pp, place.c, affine)] if inputs == 2 else []
        return [*first, ReLUConvBN(place.c_p, place.c, affine)]

    def begins_stage(self, place: Any) -> bool:
        """Return whether a cell begins a stage: a reduction cell does."""
        return bool(place.reduction)

    def before_pooling(self, channels: int, activation: Callable[[int], nn.Module] = relu) -> nn.Module:
        """Return what the last cell's output passes before it is pooled."""
        return nn.Identity()


DARTS = Skeleton()


def aggregate(terms: list[Tensor], aggregation: str) -> Tensor:
    """Return the sum or the mean of the edges into a node."""
    total: Tensor = sum(terms[1:], terms[0])
    return total / len(terms) if aggregation == "mean" else total


def cuts(cells: list[nn.Module], last: nn.Module) -> list[list[tuple[nn.Module, int]]]:
    """Return for every cell the inputs that cross the cut behind it, as pairs of a module and the input's number.

    Two outputs are in use there: the cell's own, by the next two cells, and that of the cell before, by the next one.
    """
    points: list[list[tuple[nn.Module, int]]] = []
    for index in range(1, len(cells)):
        following = cells[index : index + 2]
        points.append([(following[0], 1), *((cell, 0) for cell in following)])
    return [*points, [(last, 0)]]


class DropPath(nn.Module):
    """Drop an edge for whole examples with probability `p` while training, and rescale the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.p = 0.0
        self.generator: torch.Generator | None = None  # None: torch's global one

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, C, H, W]` of the same shape; the identity in eval mode or at p = 0."""
        if not self.training or self.p == 0.0:
            return x
        # The generator of a batch that is split over processes says its size, and which rows are at hand.
        whole = getattr(self.generator, "whole", 0) or x.shape[0]
        keep = torch.empty(whole, 1, 1, 1, dtype=x.dtype, device=x.device)
        keep.bernoulli_(1 - self.p, generator=self.generator)
        return x * keep[getattr(self.generator, "rows", slice(None))] / (1 - self.p)


class Node(nn.ModuleList):
    """A node of a cell: the sum (or mean) of its edges, each an operation on one earlier state."""

    def __init__(self, operations: Iterable[nn.Module], sources: list[int], aggregation: str = "sum") -> None:
        super().__init__(operations)
        self.sources, self.aggregation = sources, aggregation

    def forward(self, states: list[Tensor], drop_path: DropPath) -> Tensor:
        """Return the next state from those `[B, c, H, W]` so far; identities are never dropped, as in DARTS."""
        terms: list[Tensor] = []
        for edge, source in zip(self, self.sources, strict=True):
            term = edge(states[source])
            terms.append(term if isinstance(edge, nn.Identity) else drop_path(term))
        return aggregate(terms, self.aggregation)


class NetworkCell(nn.Module):
    """A cell: adapted inputs, nodes that add their edges, and the concatenation of the output nodes."""

    def __init__(self, plan: CellPlan, affine: bool = True, skeleton: Skeleton = DARTS) -> None:
        super().__init__()
        *first, last = skeleton.adapters(plan, plan.inputs, affine)
        self.preprocess0 = first[0] if first else None
        self.preprocess1 = last
        self.concat, self.reduction = plan.concat, plan.reduction
        self.nodes = nn.ModuleList(
            Node(
                [
                    OPERATIONS.get(operation).build(
                        plan.c, 2 if plan.reduction and source < plan.inputs else 1, affine
                    )
                    for operation, source in node
                ],
                [source for _, source in node],
                plan.aggregation,
            )
            for node in plan.nodes
        )
        self.drop_path = DropPath()

    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
        """Return `[B, c * len(concat), H', W']` from the outputs of the two cells before."""
        states = [] if self.preprocess0 is None else [self.preprocess0(s0)]
        states.append(self.preprocess1(s1))
        for node in self.nodes:
            states.append(node(states, self.drop_path))
        return torch.cat([states[index] for index in self.concat], dim=1)


class AuxiliaryHead(nn.Module):
    """A second classifier on an inner cell, used in training alone: pooling to 2x2, two convolutions, linear.

    DARTS's head for 8x8 maps (5x5 average pooling, stride 3), with the window grown or shrunk for other sizes.
    """

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d((height - 3, width - 3), stride=3, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, classes]` of `[B, channels, height, width]`, both sides at least 4."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


class CellNetwork(nn.Module):
    """Stem, cells, pooling, classifier; `forward` gives logits `[B, classes]`."""

    def __init__(
        self,
        plans: Iterable[Sequence[Any]],  # the numbers of a `CellPlan` each
        classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        affine: bool = True,
        skeleton: Skeleton = DARTS,
        activation: str | None = None,  # None: ReLU, as the layers are built
    ) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        cells = [CellPlan(*plan) for plan in plans]
        stem = cells[0].c_p
        self.stem = nn.Sequential(nn.Conv2d(len(mean), stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem))
        self.cells = nn.ModuleList(NetworkCell(plan, affine, skeleton) for plan in cells)
        channels = cells[-1].c * len(cells[-1].concat)
        self.starts = {index for index, plan in enumerate(cells) if skeleton.begins_stage(plan)}
        make = ActivationMaker(relu if activation is None else ACTIVATIONS.get(activation).build)
        if activation is not None:
            self._set_activation(make)
        self.before_pooling = skeleton.before_pooling(channels, partial(make, len(self.starts) + 1))
        make.register(self)
        self.classifier = nn.Linear(channels, classes)
        self.auxiliary: AuxiliaryHead | None = None
        self.auxiliary_after = -1

    def _set_activation(self, make: ActivationMaker) -> None:
        """Put an activation in the place of the cells' ReLUs; it belongs to the stage of its cell."""
        stage = 1
        for index, cell in enumerate(self.cells):
            stage += index in self.starts
            for module in cell.modules():
                replace = getattr(module, "set_activation", None)
                if replace is not None:
                    replace(partial(make, stage))

    def add_auxiliary_head(self, after_cell: int, channels: int, height: int, width: int) -> None:
        """Put a second classifier behind a cell whose output is `[B, channels, height, width]`."""
        self.auxiliary = AuxiliaryHead(channels, height, width, self.classifier.out_features)
        self.auxiliary_after = after_cell

    def set_drop_path(self, p: float, generator: torch.Generator | None = None) -> None:
        """Set the probability with which an edge is dropped while training, and the source of the draws."""
        for module in self.modules():
            if isinstance(module, DropPath):
                module.p, module.generator = p, generator

    def staged(self, x: Tensor) -> list[Tensor]:
        """Return the output `[B, c, h, w]` of every stage for images `[B, C, H, W]` in 0..1, and the logits.

        A reduction begins a stage; the stem belongs to the first one.
        """
        s0 = s1 = self.stem(self.normalise(x))
        outputs: list[Tensor] = []
        for index, cell in enumerate(self.cells):
            if index in self.starts:
                outputs.append(s1)
            s0, s1 = s1, cell(s0, s1)
        return [*outputs, s1, self.classifier(self.before_pooling(s1).mean((2, 3)))]

    def mixing_points(self) -> list[list[tuple[nn.Module, int]]]:
        """Return for every cell the inputs of modules that cross the cut behind it: (module, number of the input)."""
        return cuts(list(self.cells), self.before_pooling)

    def latent_layers(self) -> list[str]:
        """Return the names of the layers at which the network can be cut (`layers/cuts.py`), the default last.

        Behind a cell that is not the last one the cut crosses two outputs, but where cells have one input.
        """
        cells = list(self.cells)
        alone = [
            index for index in range(len(cells)) if all(c.preprocess0 is None for c in cells[index + 1 :])
        ]
        return ["stem", *(f"cells.{index}" for index in alone), "features"]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, classes]` of images `[B, C, H, W]` in 0..1."""
        return self.staged(x)[-1]

    def auxiliary_logits(self, x: Tensor) -> Tensor:
        """Return logits `[B, classes]` of the auxiliary head, computed up to its cell only."""
        if self.auxiliary is None:
            raise ValueError("this network was built without an auxiliary head")
        s0 = s1 = self.stem(self.normalise(x))
        for cell in list(self.cells)[: self.auxiliary_after + 1]:
            s0, s1 = s1, cell(s0, s1)
        logits: Tensor = self.auxiliary(s1)
        return logits
