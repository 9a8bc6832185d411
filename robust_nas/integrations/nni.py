"""The bridge to NNI 3.0 (`pip install 'robust-nas[nni]'`): our cell spaces as its model spaces, its one-shot search.

Labels and samples are told in `samples.py`, the adversarial steps of a search in `one_shot.py`. NNI's experiments are
not used: its server is never started, no port is opened, and nothing is written but the run folder.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.data import Augment, Images
from robust_nas.errors import ArchitectureError, ConfigError
from robust_nas.integrations.one_shot import Half, OneShotSearch, own_generators, quiet
from robust_nas.integrations.samples import Sample, edge_label, from_sample, node_label, to_sample
from robust_nas.layers.normalise import Normalise
from robust_nas.nets.build import channels_last, seeded
from robust_nas.nets.network import CellPlan, NetworkCell, Node
from robust_nas.operations import OPERATIONS
from robust_nas.runs import Progress, Run, silent
from robust_nas.search.loop import SearchOutcome
from robust_nas.search.options import NNI
from robust_nas.spaces import CellPlace, CellSpace, Size

try:
    with warnings.catch_warnings():
        # NNI wraps every public class of torch.nn, and says so of those that are no modules.
        warnings.filterwarnings("ignore", r".* is found to be not a nn\.Module", RuntimeWarning)
        warnings.filterwarnings("ignore", "PyTorch-Lightning must be installed")  # our own error says it
        from nni.nas.evaluator.pytorch import Lightning, LightningModule, Trainer
        from nni.nas.execution import SequentialExecutionEngine
        from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableModule
        from nni.nas.space import RawFormatModelSpace
        from nni.nas.strategy import DARTS, GumbelDARTS
        from pytorch_lightning.plugins.environments import LightningEnvironment
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
    "search",
    "to_model_space",
    "to_sample",
]

STRATEGIES = {"darts": DARTS, "gumbel-darts": GumbelDARTS}


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
        concat = dict.fromkeys(space.layout.kinds, space.nodes)
        places = list(space.layout.places(size.cells, size.channels, concat))
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

    Raises `ArchitectureError` for an impossible size, and for too few cells to hold every kind of the space.
    """
    own = space.search if supernet else space.network
    size = Size(cells=cells or own.cells, channels=channels or own.channels)
    mean, std = mean or (0.0,) * in_channels, std or (1.0,) * in_channels
    places = space.layout.places(size.cells, size.channels, dict.fromkeys(space.layout.kinds, space.nodes))
    absent = set(space.layout.kinds) - {place.kind for place in places}
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
        supernet: nn.Module = DARTS().mutate_model(model)
    return supernet


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


class _Loader:
    """The steps of one half: NNI asks for a loader each, and hands what they yield back to `training_step`."""

    def __init__(self, half: Half, steps: int) -> None:
        self.half, self.steps = half, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Half, int]]:
        return ((self.half, step) for step in range(self.steps))


class _AdversarialTraining(LightningModule):  # type: ignore[misc]
    """What NNI's strategy runs: an adversarial loss for either half, our optimiser, records and checkpoints."""

    def __init__(self, job: OneShotSearch, space: CellSpace, strategy: Any) -> None:
        super().__init__()
        self.job, self.space, self.strategy = job, space, strategy
        self.state: dict[str, Any] | None = None  # of the checkpoint that the run goes on from
        self.losses: dict[Half, Tensor] = {}

    def training_step(self, batch: tuple[Half, int], batch_idx: int) -> Tensor:
        """The loss of one half's batch, attacked now; NNI steps the alphas by the one and the weights by the other."""
        half, step = batch
        images, labels = self.job.adversarial(self.model, half, self.trainer.current_epoch, step)
        loss = nn.functional.cross_entropy(self.model(images), labels)
        self.losses[half] = loss.detach()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD; NNI takes the alphas out, which have an Adam of their own."""
        options = self.job.options.weights
        return torch.optim.SGD(
            self.parameters(),
            options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )

    def on_fit_start(self) -> None:
        """Goes on where the checkpoint was written."""
        if self.state is not None:
            weights, alphas = self.trainer.optimizers
            self.job.restore_strategy(self.state, weights, alphas, architecture_parameters(self.model))

    def on_train_epoch_start(self) -> None:
        """Sets the learning rate of the weights."""
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.job.learning_rate(self.trainer.current_epoch)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        """Records the step."""
        mixing = choice_weights(self.space, self.model)[0]
        derived = from_sample(self.space, self.strategy.oneshot_module.export())
        self.job.record(self.trainer.current_epoch, batch_idx, self.losses, mixing, derived)

    def on_train_epoch_end(self) -> None:
        """Writes a checkpoint where one is due."""
        weights, alphas = self.trainer.optimizers
        states = {label: alphas.state[alpha] for label, alpha in architecture_parameters(self.model).items()}
        self.job.save(self.trainer.current_epoch + 1, self.model, weights, states)


def search(
    run: Run,
    space: CellSpace,
    images: Images,
    options: NNI,
    augmentation: Augment,
    *,
    classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    name: str,
    seed: int,
    checkpoint_seconds: float = 60.0,
    progress: Progress = silent,
) -> SearchOutcome:
    """Searches a space by one of NNI's one-shot strategies on attacked `images`, half for weights, half for alphas.

    Continues from the run's checkpoint where there is one, to the same bits on a CPU. NNI draws from torch's global
    generators: they are seeded inside and come back as they were. Raises `DivergenceError` when a loss stops being
    finite; the checkpoint before it stays.
    """
    device = images.pixels.device
    model = to_model_space(
        space,
        channels=options.channels,
        cells=options.cells,
        classes=classes,
        in_channels=len(mean),
        mean=mean,
        std=std,
        supernet=True,
        seed=seed,
    )
    strategy = STRATEGIES[options.strategy](
        arc_learning_rate=options.alphas.learning_rate, gradient_clip_val=options.weights.clip_norm
    )
    job = OneShotSearch(run, images, options, augmentation, seed, checkpoint_seconds, progress)
    with own_generators(device, seed), quiet("nni", "pytorch_lightning", "lightning_fabric"):
        module = _AdversarialTraining(job, space, strategy)
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=[device.index or 0] if device.type == "cuda" else 1,
            plugins=[LightningEnvironment()],  # or it would look for a cluster
            max_epochs=options.epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(run.folder),
        )
        evaluator = Lightning(module, trainer, _Loader("weights", job.steps), _Loader("alphas", job.steps))
        strategy.initialize(RawFormatModelSpace(model, evaluator), SequentialExecutionEngine())
        supernet = channels_last(strategy.supernet.to(device))
        module.state = job.restore(supernet)
        trainer.fit_loop.epoch_progress.current.processed = job.epoch
        if job.epoch < options.epochs:
            strategy.run()
        strategy.oneshot_module.set_model(supernet)
        found = from_sample(space, strategy.oneshot_module.export(), name)
    mixing, sources = choice_weights(space, supernet)
    return SearchOutcome(
        found, {kind: weights.tolist() for kind, weights in mixing.items()}, job.elapsed(), job.last, sources
    )


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
