"""The bridge to NNI 3.0 (`pip install 'robust-nas[nni]'`): our cell spaces as its model spaces, its one-shot search on them.

A cell of a kind has one choice per edge and one per node, shared by all cells of the kind through their labels:

    "<kind>.<node>.<source>"   LayerChoice: the operation of the edge
    "<kind>.<node>"            InputChoice: the `edges_per_node` sources of the node

A sample names the operations of all edges, also of those that its nodes do not choose; they take no part, so samples
that differ in them alone are one architecture. NNI's server is never started, and nothing is written but the run folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.errors import ArchitectureError, ConfigError
from robust_nas.nets.build import seeded
from robust_nas.nets.network import CellPlan, NetworkCell, Node
from robust_nas.nets.normalise import Normalise
from robust_nas.nets.operations import OPERATIONS
from robust_nas.nets.supernet import candidate
from robust_nas.spaces import CellArchitecture, CellPlace, CellSpace, Edge, Size

try:
    with warnings.catch_warnings(
        action="ignore"
    ):  # NNI wraps names of torch.nn that are no modules, and says so
        from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableModule
        from nni.nas.strategy import DARTS
except ImportError as error:
    raise ConfigError(
        f"NNI's bridge needs NNI 3.0 and pytorch-lightning, and one is missing ({error}); "
        "install both: pip install 'robust-nas[nni]'"
    ) from None

Sample = dict[str, Any]


def from_sample(
    space: CellSpace, sample: Mapping[str, Any], name: str | None = None, size: Size | None = None
) -> CellArchitecture:
    """The architecture of a sample, at the space's final size unless told otherwise.

    Raises `ArchitectureError` for a sample of another space.
    """
    try:
        genotype = {
            kind: [
                [
                    Edge(sample[f"{kind}.{node}.{source}"], int(source))
                    for source in _distinct(sample[f"{kind}.{node}"], space.edges_per_node)
                ]
                for node in range(space.nodes)
            ]
            for kind in space.layout.kinds
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ArchitectureError(f"no sample of the space {space.name}: {error!r}") from None
    found = space.architecture(name or f"{space.name}-nni", genotype, size)
    to_sample(space, found)
    return found


def _distinct(sources: list[int], wanted: int) -> list[int]:
    if len(sources) != wanted or len(set(sources)) < wanted:
        raise ValueError(f"a node has the sources {sources}; {wanted} distinct ones are needed")
    return sources


def to_sample(space: CellSpace, architecture: CellArchitecture) -> Sample:
    """The sample of an architecture, the first operation on every edge that takes no part; the inverse of `from_sample`.

    Raises `ArchitectureError` where the architecture is not of this space.
    """
    problem = None
    if architecture.layout != space.layout:
        problem = "its layout is another"
    sample: Sample = {}
    for kind in space.layout.kinds if problem is None else ():
        cell = architecture.cell(kind)
        if len(cell.nodes) != space.nodes or cell.concat != tuple(range(2, space.nodes + 2)):
            problem = f"its {kind} cell has {len(cell.nodes)} nodes and concat {list(cell.concat)}"
            break
        for number, node in enumerate(cell.nodes):
            sources = [edge.source for edge in node]
            if len(set(sources)) < len(sources) or len(sources) != space.edges_per_node:
                problem = f"its {kind} cell has a node of sources {sources}"
            for edge in node:
                if edge.operation not in space.operations:
                    problem = f"its {kind} cell has a {edge.operation}"
            operations = {edge.source: edge.operation for edge in node}
            for source in range(number + 2):
                sample[f"{kind}.{number}.{source}"] = operations.get(source, space.operations[0])
            sample[f"{kind}.{number}"] = sources
    if problem:
        raise ArchitectureError(f"{architecture.name} is not of the space {space.name}: {problem}")
    return sample


class _ChoiceNode(MutableModule):  # type: ignore[misc] # NNI has no types
    """A node before the choice: an operation to choose on every earlier state, and which of them to add."""

    def __init__(self, space: CellSpace, place: CellPlace, number: int, supernet: bool) -> None:
        super().__init__()

        def operation(name: str, source: int) -> nn.Module:
            stride = 2 if place.reduction and source < 2 else 1
            return candidate(name, place.c, stride) if supernet else OPERATIONS[name](place.c, stride, True)

        label = f"{place.kind}.{number}"
        self.edges = nn.ModuleList(
            LayerChoice(
                {name: operation(name, source) for name in space.operations}, label=f"{label}.{source}"
            )
            for source in range(number + 2)
        )
        self.inputs = InputChoice(number + 2, n_chosen=space.edges_per_node, reduction="sum", label=label)

    def forward(self, states: list[Tensor], drop_path: nn.Module) -> Tensor:
        """The states `[B, c, H, W]` so far to the next one."""
        terms = [edge(state) for edge, state in zip(self.edges, states, strict=True)]
        chosen: Tensor = self.inputs(terms)
        return chosen

    def freeze(self, sample: Sample) -> Node:
        """The node of a network: the chosen edges alone, with the weights of here."""
        sources = [int(source) for source in self.inputs.freeze(sample).chosen]
        return Node([self.edges[source].freeze(sample) for source in sources], sources)


class CellModelSpace(ModelSpace):  # type: ignore[misc]
    """A cell space as NNI's model space; parameters are named as in `CellNetwork`, and `freeze(sample)` computes it."""

    def __init__(
        self,
        space: CellSpace,
        size: Size,
        classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        supernet: bool,
    ) -> None:
        super().__init__()
        concat = dict.fromkeys(space.layout.kinds, space.nodes)
        places = list(space.layout.places(size.cells, size.channels, concat))
        stem = places[0].c_p
        self.normalise = Normalise(mean, std)
        self.stem = nn.Sequential(nn.Conv2d(len(mean), stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem))
        self.cells = nn.ModuleList()
        for place in places:
            plan = CellPlan(
                place.c_pp,
                place.c_p,
                place.c,
                place.reduction,
                place.reduction_prev,
                (),
                tuple(range(2, space.nodes + 2)),
            )
            cell = NetworkCell(plan, affine=not supernet)
            cell.nodes.extend(_ChoiceNode(space, place, number, supernet) for number in range(space.nodes))
            self.cells.append(cell)
        self.classifier = nn.Linear(places[-1].c * space.nodes, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, C, H, W]` in 0..1 to logits `[B, K]`."""
        s0 = s1 = self.stem(self.normalise(x))
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1)
        logits: Tensor = self.classifier(s1.mean((2, 3)))
        return logits


def to_model_space(
    space: CellSpace,
    *,
    channels: int | None = None,
    cells: int | None = None,
    classes: int = 10,
    in_channels: int = 3,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    supernet: bool = False,
    seed: int = 0,
) -> CellModelSpace:
    """The `nni.nas` model space of a cell space, weights drawn from `seed`.

    By default it is made to be frozen: operations and size (the space's `network`) are those of a final network. With
    `supernet` it is made for NNI's one-shot strategies: operations stand as in `Supernet` (batch norm without scale, one
    behind each pooling), the size is the space's `search`. NNI's strategies change a model space in place: build a new one.
    Raises `ArchitectureError` for an impossible size, and for too few cells to hold every kind of the space.
    """
    own = space.search if supernet else space.network
    size = Size(cells=cells or own.cells, channels=channels or own.channels)
    mean, std = mean or (0.0,) * in_channels, std or (1.0,) * in_channels
    places = space.layout.places(size.cells, size.channels, dict.fromkeys(space.layout.kinds, space.nodes))
    absent = set(space.layout.kinds) - {place.kind for place in places}
    if absent:
        raise ArchitectureError(
            f"cells: got {size.cells}, which leaves no {', '.join(sorted(absent))} cell of {space.name}; more are needed"
        )
    with seeded(seed):
        return CellModelSpace(space, size, classes, mean, std, supernet)


def darts_supernet(
    space: CellSpace,
    channels: int | None = None,
    cells: int | None = None,
    classes: int = 10,
    in_channels: int = 3,
    *,
    seed: int = 0,
) -> nn.Module:
    """The supernet that NNI's DARTS makes of our space: images `[B, C, H, W]` to logits `[B, K]`, without a trainer.

    Its sizes and operations are those of `Supernet(space, classes, in_channels, channels, cells)`. One search step by hand,
    with any attack of ours (first order, as NNI has it: no unrolled step, no term through the weights):

        net = darts_supernet(space, channels=16, cells=8)
        alphas = list(architecture_parameters(net).values())
        ours = {id(alpha) for alpha in alphas}
        weights = [parameter for parameter in net.parameters() if id(parameter) not in ours]
        alpha_optimiser = torch.optim.Adam(alphas, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
        weight_optimiser = torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4)
        for optimiser, x, y in ((alpha_optimiser, v, t), (weight_optimiser, x, y)):
            x = attack(net, x, y, generator)  # PGD(eps=8/255, steps=7), FGSM(eps=8/255), ...
            optimiser.zero_grad()
            cross_entropy(net.train()(x), y).backward()
            optimiser.step()
    """
    model = to_model_space(
        space,
        channels=channels,
        cells=cells,
        classes=classes,
        in_channels=in_channels,
        supernet=True,
        seed=seed,
    )
    with seeded(seed):  # the alphas
        supernet: nn.Module = DARTS().mutate_model(model)
    return supernet


def architecture_parameters(supernet: nn.Module) -> dict[str, nn.Parameter]:
    """The logits of every choice by its label, `[O]` of an edge and `[sources]` of a node, each once, in a fixed order."""
    found: dict[str, nn.Parameter] = {}
    for module in supernet.modules():
        if hasattr(module, "arch_parameters"):
            found.setdefault(module.label, next(iter(module.arch_parameters())))
    return found
