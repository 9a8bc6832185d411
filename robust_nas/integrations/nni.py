"""The bridge to NNI 3.0 (`pip install 'robust-nas[nni]'`): our cell spaces as its model spaces, and its supernets.

Labels and samples are in `samples.py`, NNI's strategies for our search loop in `nni_strategy.py`. NNI's experiments are
not used: its server is never started, no port is opened, and nothing is written but the run folder.
"""

from __future__ import annotations

import copy
import warnings
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robust_nas.errors import ArchitectureError, ConfigError, SearchSpaceError
from robust_nas.integrations.samples import Sample, edge_label, from_sample, node_label, to_sample
from robust_nas.layers.normalise import Normalise
from robust_nas.nets.build import seeded
from robust_nas.nets.network import CellPlan, NetworkCell, Node
from robust_nas.operations import OPERATIONS
from robust_nas.spaces import CellPlace, CellSpace, Size, Topology

try:
    with warnings.catch_warnings():
        # NNI wraps every public class of torch.nn, and says so of those that are no modules.
        warnings.filterwarnings("ignore", r".* is found to be not a nn\.Module", RuntimeWarning)
        warnings.filterwarnings("ignore", "PyTorch-Lightning must be installed")  # our own error says it
        from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableModule
        from nni.nas.oneshot.pytorch.differentiable import LinearTemperatureScheduler
        from nni.nas.oneshot.pytorch.supermodule.differentiable import GumbelSoftmax
        from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless
        from pytorch_lightning import LightningModule  # noqa: F401 - NNI needs it, and does not declare it
except ImportError as error:
    raise ConfigError(
        f"NNI's bridge needs NNI 3.0 and pytorch-lightning, and one is missing ({error}); "
        "install both: pip install 'robust-nas[nni]'"
    ) from None

__all__ = [
    "CellModelSpace",
    "architecture_parameters",
    "choice_weights",
    "darts_supernet",
    "from_sample",
    "mutated",
    "resample",
    "set_temperature",
    "to_model_space",
    "to_sample",
]

STRATEGIES = {"darts": DARTS, "gumbel-darts": GumbelDARTS, "proxyless": Proxyless}


class _ChoiceNode(MutableModule):  # type: ignore[misc] # NNI has no types
    """A node before the choice: an operation to choose on every earlier state, and which of them to add."""

    def __init__(self, space: CellSpace, place: CellPlace, number: int, supernet: bool) -> None:
        super().__init__()

        def operation(name: str, source: int) -> nn.Module:
            stride = 2 if place.reduction and source < 2 else 1
            chosen = OPERATIONS.get(name)
            return chosen.candidate(place.c, stride) if supernet else chosen.build(place.c, stride, True)

        label = f"{place.kind}.{number}"
        self.edges: Any = nn.ModuleList(
            LayerChoice(
                {name: operation(name, source) for name in space.operations}, label=f"{label}.{source}"
            )
            for source in range(number + 2)
        )
        self.inputs: Any = InputChoice(
            number + 2, n_chosen=space.edges_per_node, reduction="sum", label=label
        )

    def forward(self, states: list[Tensor], drop_path: nn.Module) -> Tensor:
        """The states `[B, c, H, W]` so far to the next one."""
        terms = [edge(state) for edge, state in zip(self.edges, states, strict=True)]
        chosen: Tensor = self.inputs(terms)
        return chosen

    def freeze(self, sample: Sample) -> Node:
        """The node of a network: the chosen edges alone, with copies of the weights of here."""
        sources = [int(source) for source in self.inputs.freeze(sample).chosen]
        return Node([copy.deepcopy(self.edges[source].freeze(sample)) for source in sources], sources)


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
        places = space.places(size)
        stem = places[0].c_p
        self.normalise = Normalise(mean, std)
        self.stem = nn.Sequential(nn.Conv2d(len(mean), stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem))
        self.cells = nn.ModuleList()
        for place in places:
            _, _, reduction, reduction_prev, c_pp, c_p, c = place
            concat_nodes = tuple(range(2, space.nodes + 2))
            plan = CellPlan(c_pp, c_p, c, reduction, reduction_prev, nodes=(), concat=concat_nodes)
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
    `supernet` it is made for NNI's one-shot strategies: operations stand as in `Supernet` (batch norm without scale,
    one behind each pooling), the size is the space's `search`. NNI's strategies change a model space in place.

    Raises `ArchitectureError` for an impossible size, and for too few cells to hold every kind of the space;
    `SearchSpaceError` where topology, family or kept edges are not those of DARTS.
    """
    if (space.type, space.topology) != ("cell", Topology()) or space.edges_per_node == "all":
        raise SearchSpaceError(
            f"{space.name}: a model space of NNI has DARTS's topology and skeleton, and a number of edges_per_node; "
            f"got type {space.type!r}, {space.topology!r}, edges_per_node {space.edges_per_node}; search it by dsara"
        )
    own = space.search if supernet else space.network
    size = Size(cells=cells or own.cells, channels=channels or own.channels)
    mean, std = mean or (0.0,) * in_channels, std or (1.0,) * in_channels
    absent = set(space.kinds) - {place.kind for place in space.places(size)}
    if absent:
        raise ArchitectureError(
            f"cells: got {size.cells}, which leaves no {', '.join(sorted(absent))} cell of {space.name}; "
            "more cells are needed"
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

    Its operations are those of `Supernet(space, classes, in_channels, channels, cells)`; its nodes add their edges by
    learned weights. One search step by hand, with any attack of ours (NNI's DARTS is of first order: no unrolled step):

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
        return mutated(model)


def architecture_parameters(supernet: nn.Module) -> dict[str, nn.Parameter]:
    """The logits of every choice by its label, once each: `[O]` of an edge, a number per source of a node.

    NNI's own list of them comes in another order in every process.
    """
    found: dict[str, nn.Parameter] = {}
    for module in supernet.modules():
        choice: Any = module
        if hasattr(choice, "arch_parameters"):
            found.setdefault(str(choice.label), next(iter(choice.arch_parameters())))
    return found


def mutated(
    model: CellModelSpace, strategy: Literal["darts", "gumbel-darts", "proxyless"] = "darts"
) -> nn.Module:
    """Return the supernet that a strategy of NNI's makes of a model space; the alphas come from torch's generator."""
    supernet: nn.Module = STRATEGIES[strategy]().mutate_model(model)
    return supernet


def resample(supernet: nn.Module) -> Sample:
    """Draw one value of every choice from the softmax of its alphas, as NNI's Proxyless does; return the sample.

    All draws are read back from the device together; NNI reads each by itself.
    """
    choices: dict[str, Any] = {}
    for module in supernet.modules():
        choice: Any = module
        if hasattr(choice, "arch_parameters"):
            choices.setdefault(str(choice.label), choice)
    alphas = architecture_parameters(supernet)
    draws = [
        torch.multinomial(alphas[label].detach().softmax(0), getattr(choice, "n_chosen", None) or 1)
        for label, choice in choices.items()
    ]
    values = iter(torch.cat(draws).tolist())
    sample: Sample = {}
    for (label, choice), draw in zip(choices.items(), draws, strict=True):
        drawn = list(islice(values, len(draw)))
        sample[label] = drawn if isinstance(choice, InputChoice) else choice.names[drawn[0]]
    for module in supernet.modules():
        choice = module
        if hasattr(choice, "arch_parameters"):
            choice.resample(sample)
    return sample


def set_temperature(supernet: nn.Module, epoch: int, epochs: int) -> None:
    """Set every Gumbel softmax of a supernet to the temperature of an epoch, by the schedule of NNI's GumbelDARTS."""
    temperature = LinearTemperatureScheduler(*GumbelDARTS().temperature).step(epoch, epochs)
    for module in supernet.modules():
        if isinstance(module, GumbelSoftmax):
            module.tau = temperature


def choice_weights(
    space: CellSpace, supernet: nn.Module
) -> tuple[dict[str, Tensor], dict[str, list[list[float]]]]:
    """The softmax of every choice: of operations `[E, O]` per kind, and of the sources of each node per kind."""
    softmax = {label: alpha.detach().softmax(0) for label, alpha in architecture_parameters(supernet).items()}
    kinds = space.layout.kinds
    edges = {kind: torch.stack([softmax[edge_label(kind, *edge)] for edge in space.edges]) for kind in kinds}
    sources = {
        kind: [softmax[node_label(kind, node)].tolist() for node in range(space.nodes)] for kind in kinds
    }
    return edges, sources
