"""A single-path supernet under adversarial training, and the adversarial losses of its paths.

    step t      a path of every sample takes a common batch (`batches.py`); the loss is clean for t <= T_clean
    uniform     one random path a step                                            (Guo et al., ECCV 2020)
    fair        K paths a step, K the number of operations: every operation of every edge once, gradients added
                                                                                  (strict fairness, FairNAS, ICCV 2021)
    EMA         m_n = d m_{n-1} + (1 - d) w_n,   d = min(decay, (1 + n) / (10 + n))
    loss(a, b)  = CE(f_a(x_b'), y_b),  x_b' by FGSM,  b the held-out batches, f_a with the weights m

Only the operations of a path are computed. Batch norm takes the statistics of the batch everywhere. Where nodes keep k
of their sources, every path draws its own: in a fair step each operation of an edge is then met at most once. The clean
warm start and the small eps of the default are from measurements with a prototype. `steps` counts paths.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from robust_nas.attacks.attack import BoundedAttack, attack_field
from robust_nas.attacks.fgsm import FGSM
from robust_nas.config import Count, CountOrZero, Fraction01, Options
from robust_nas.data.splits import random_indices
from robust_nas.errors import ConfigError
from robust_nas.lazy import F, torch
from robust_nas.run_folder import Run
from robust_nas.search.ranking.batches import BatchTraining, LossCurve
from robust_nas.search.ranking.method import RankingContext
from robust_nas.search.ranking.standalone import GENTLE
from robust_nas.spaces import CellArchitecture, CellSpace, Edge, Size, sample
from robust_nas.training.loss import Loss
from robust_nas.training.losses import loss_of_steps
from robust_nas.training.losses.natural import Natural

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.data import Images
    from robust_nas.nets.single_path import SinglePathSupernet

LEAST_IMAGES = 768  # with fewer, the noise of the images is larger than the differences of paths
GENTLE_FGSM = FGSM(eps=4 / 255, bn="batch", keep="last")


def _enough(images: int) -> int:
    if images < LEAST_IMAGES:
        raise ValueError(f"got {images} images; at least {LEAST_IMAGES} are needed to tell paths apart")
    return images


class PathTraining(BatchTraining):
    """The training of a supernet's paths, and the images that score them."""

    learning_rate: Annotated[float, Field(gt=0)] = 0.05  # of SGD, after its rise
    warmup: Annotated[Fraction01, Field(lt=1)] = 0.02
    # paths: each drawn by itself, or all operations equally often
    sampling: Literal["uniform", "fair"] = "uniform"
    steps: Count = 12_000  # paths that are trained by `loss`
    clean_steps: CountOrZero = 4_000  # paths that are trained by clean images before them
    loss: Annotated[Loss, loss_of_steps()] = GENTLE  # of the attacked steps
    ema: Fraction01 = 0.998  # decay of the averaged weights per step
    # attack on the images that score
    score_attack: Annotated[
        BoundedAttack, attack_field(lambda attack: attack.for_training, "it is not fit for training")
    ] = GENTLE_FGSM
    score_images: Annotated[Count, AfterValidator(_enough)] = LEAST_IMAGES  # held-out images that score
    score_batch: Annotated[int, Field(ge=2)] = 128  # images of a pass that scores

    @model_validator(mode="after")
    def _attacks_take_batch_statistics(self) -> Self:
        for key, attack in (("loss.attack", self.loss.inner_attack), ("score_attack", self.score_attack)):
            if attack is not None and attack.bn != "batch":
                raise ValueError(
                    f"{key}.bn: got {attack.bn!r}; a supernet has no running statistics, so batch is needed"
                )
        return self

    def split(self, context: RankingContext) -> tuple[RankingContext, Images]:
        """Return the context with the images that are trained on, and the reduced ones that score; by the seed.

        Raises `ConfigError` where they are too few.
        """
        count = len(context.images)
        if count < self.score_images + self.batch_size:
            raise ConfigError(
                f"supernet: got {count} images; {self.score_images} that score and a batch of {self.batch_size} "
                "are needed"
            )
        order = random_indices(count, None, context.seed)
        trained, held_out = (
            replace(context, images=context.images.subset(part))
            for part in (order[self.score_images :], order[: self.score_images])
        )
        return trained, held_out.reduced(self.side)

    def supernet(self, space: CellSpace, context: RankingContext, images: Images) -> SinglePathSupernet:
        """Return the supernet at its start, for images of this shape and on their device."""
        from robust_nas.nets import channels_last
        from robust_nas.nets.single_path import SinglePathSupernet

        shape: Any = tuple(images.pixels.shape[1:])
        made = SinglePathSupernet(
            space,
            self.size(sample(space, 0)),
            input_shape=shape,
            classes=context.classes,
            mean=context.mean,
            std=context.std,
            seed=context.seed,
        )
        channels_last(made.network.to(images.pixels.device)).train()
        for module in made.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.track_running_stats = False  # those of many paths would mean nothing
        return made

    def paths(self, space: CellSpace, size: Size, step: int, seed: int) -> list[CellArchitecture]:
        """Return the paths of a step, from its number and the seed alone."""
        rng = np.random.default_rng([seed, step])
        if self.sampling == "uniform":
            return [sample(space, int(rng.integers(2**32)), size=size)]
        return fair_paths(space, size, rng)

    @property
    def total(self) -> int:
        """Return the number of paths that are trained."""
        return self.clean_steps + self.steps


def fair_paths(space: CellSpace, size: Size, rng: np.random.Generator) -> list[CellArchitecture]:
    """Return K paths in which no operation of an edge comes twice: a permutation of the operations on every edge."""
    operations = len(space.operations)
    order = {kind: [rng.permutation(operations) for _ in space.edges] for kind in space.kinds}
    edges = {edge: number for number, edge in enumerate(space.edges)}
    found = []
    for turn in range(operations):
        genotype: dict[str, list[list[Edge]]] = {}
        for kind in space.kinds:
            nodes = []
            for node in range(space.nodes):
                sources = np.array(space.sources_of(node))
                kept = np.sort(rng.choice(sources, space.kept(node), replace=False)).tolist()
                chosen = [(int(order[kind][edges[node, source]][turn]), source) for source in kept]
                nodes.append([Edge(space.operations[operation], source) for operation, source in chosen])
            genotype[kind] = nodes
        found.append(space.architecture(f"path-{turn}", genotype, size))
    return found


class SupernetJob(Options):
    """What a trained supernet depends on; its run folder lies in that of its ranking or search, which hold the rest."""

    space: CellSpace
    training: PathTraining
    seed: int


class TrainedPaths:
    """A supernet, trained once in a run folder of its own; `losses` scores its paths."""

    def __init__(self, options: PathTraining, space: CellSpace, context: RankingContext) -> None:
        """Train, continue, or read what was trained. Raises `DivergenceError`."""
        self.options, self.space, self.context = options, space, context
        trained, self.held_out = options.split(context)
        self.supernet = options.supernet(space, context, self.held_out)
        own = PathTraining(**{key: getattr(options, key) for key in PathTraining.model_fields})
        job = SupernetJob(space=space, training=own, seed=context.seed)
        with Run(context.run.folder / "supernet", job, "resume") as run:
            self.accuracy = _Training(self, trained, run).run_to_end()  # on adversarial training images, 0..1

    def losses(self, candidate: CellArchitecture) -> list[float]:
        """Return the mean adversarial cross-entropy of a candidate's path on every held-out batch."""
        from robust_nas.attacks import attack_mode
        from robust_nas.layers.depthwise import quickened

        options, found = self.options, []
        generator = torch.Generator(self.held_out.pixels.device).manual_seed(self.context.seed)
        with quickened(self.supernet.path(candidate)) as path:
            for indices in torch.split(torch.arange(len(self.held_out)), options.score_batch):
                part = self.held_out.subset(indices)
                x = part.float().contiguous(memory_format=torch.channels_last)
                adversarial = options.score_attack.craft(path, x, part.labels, generator)
                with torch.no_grad(), attack_mode(path, "batch"):
                    found.append(F.cross_entropy(path(adversarial).float(), part.labels))
        values: list[float] = torch.stack(found).tolist()
        return values


class _Training:
    """The training of a supernet: what its checkpoint holds."""

    def __init__(self, paths: TrainedPaths, context: RankingContext, run: Run) -> None:
        self.paths, self.context, self.run, self.options = paths, context, run, paths.options
        self.network = paths.supernet.network
        self.parameters = list(self.network.parameters())
        self.weights: list[Tensor] = [*self.parameters]
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.optimiser = self.options.optimiser(self.parameters)
        self.step = self.updates = 0  # paths, and movements of the weights so far
        self.losses: list[float] = []
        self.right: list[float] = []  # shares of the adversarial batches that were classified correctly

    def run_to_end(self) -> float:
        """Leave the averaged weights in the network. Return the training accuracy of the last tenth of the steps."""
        from robust_nas.layers.depthwise import quickened

        self.restore()
        if self.step < self.options.total:
            with quickened(self.network):
                self._train()
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.average, strict=True):
                parameter.copy_(average)
        last = self.right[-max(1, self.options.steps // 10) :]
        accuracy = sum(last) / len(last)
        if not self.run.finished:
            self.run.finish({"paths": self.step, "adversarial_training_accuracy": accuracy}, [])
        return accuracy

    def _train(self) -> None:
        from robust_nas.training.average import exponential

        options, context, space = self.options, self.context, self.paths.space
        size = options.size(self.paths.supernet.whole)
        batches = options.batches(context.reduced(options.side), context)
        curve = LossCurve(f"{self.run.folder}: training of the supernet", self.losses)
        saved = time.perf_counter()
        right: list[Tensor] = []
        average = exponential(options.ema, lambda: self.updates)
        while self.step < options.total:
            paths = options.paths(space, size, self.updates, context.seed)
            for path in paths:
                self.step += 1
                images, labels, generator = batches(self.step)
                value = self._loss()(self.paths.supernet.path(path), images, labels, generator)
                (value.loss / len(paths)).backward()  # type: ignore[no-untyped-call]
                curve.add(value.loss)
                right.append((value.logits.detach().argmax(1) == labels).float().mean())
            options.move(self.optimiser, options.factor(min(self.step, options.total), options.total))
            average(self.average, self.weights, 0)
            self.updates += 1
            over = self.step >= options.total
            if over or time.perf_counter() - saved >= context.checkpoint_seconds:
                curve.read()
                self.right += torch.stack(right).tolist()
                right.clear()
                self.save()
                saved = time.perf_counter()
            note = f"loss {self.losses[-1]:.3f}" if self.losses else ""
            context.progress("supernet", min(self.step, options.total), options.total, note)

    def _loss(self) -> Loss:
        """Return the loss of the present path: clean at first, then one whose eps rises."""
        options = self.options
        step = self.step - options.clean_steps
        return Natural() if step <= 0 else options.loss_at(options.loss, step, max(step, options.steps))

    def save(self) -> None:
        """Write the checkpoint. Raises `DivergenceError` where weights are not fit to be kept."""
        from robust_nas.training.divergence import refuse_broken_weights, remedy_of

        refuse_broken_weights([self.network], str(self.run.folder), remedy_of("learning_rate"))
        self.run.save_checkpoint(
            {
                "job": "supernet",
                "weights": _flat(self.weights),
                "average": _flat(self.average),
                "momentum": _flat(self._momentum()),
                "step": self.step,
                "updates": self.updates,
                "losses": self.losses,
                "right": self.right,
            }
        )

    def _momentum(self) -> list[Tensor]:
        """Return the optimiser's buffers; what was never moved has zeros, which move alike."""
        state = self.optimiser.state
        for parameter in self.parameters:
            if state[parameter].get("momentum_buffer") is None:
                state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return [state[parameter]["momentum_buffer"] for parameter in self.parameters]

    def restore(self) -> None:
        """Put the checkpoint back where there is one. Raises `CheckpointError`."""
        state = self.run.load_checkpoint()
        if state is None:
            return
        with self.run.restoring(), torch.no_grad():
            _put_back(self.weights, state["weights"])
            _put_back(self.average, state["average"])
            _put_back(self._momentum(), state["momentum"])
            self.step, self.updates = state["step"], state["updates"]
            self.losses, self.right = state["losses"], state["right"]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return the numbers of all tensors as one, on the host: a file of many small ones is slow."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).cpu()


def _put_back(tensors: Sequence[Tensor], numbers: Tensor) -> None:
    """Put back what `_flat` gave. Raises `RuntimeError` where the sizes differ."""
    parts = torch.split(numbers, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))
