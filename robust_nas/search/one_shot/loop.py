"""The loop of one-shot searches: data, steps, records, checkpoints. Killed at any instant, it resumes to the same bits.

What a step measures stays on the device until it is read back with other steps, at the latest before a checkpoint: the
loop waits for the device every `READ_EVERY` steps, not in each.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robust_nas.attacks.batch_generator import BatchGenerator, together
from robust_nas.checkpoints import restore_optimiser
from robust_nas.data import augment, split
from robust_nas.data.order import batches
from robust_nas.errors import CheckpointError, ConfigError
from robust_nas.layers.batch_norm import synchronise
from robust_nas.nets import channels_last
from robust_nas.search.one_shot.batch import Batch, Half
from robust_nas.search.one_shot.collapse import CollapseStop
from robust_nas.search.one_shot.derivation import Scores, derived
from robust_nas.search.one_shot.fitness import FitnessImages, measure_fitness
from robust_nas.search.one_shot.perturbation import attacked_batches, perturbation_scores
from robust_nas.search.one_shot.rank_correlation import rank_correlation
from robust_nas.search.one_shot.steps import OneShotSearch
from robust_nas.search.one_shot.strategy import ENTROPY, OneShotStrategy
from robust_nas.search.spread import skips
from robust_nas.search.strategy import SearchContext, SearchOutcome
from robust_nas.spaces import CellArchitecture
from robust_nas.training.divergence import refuse_broken_weights, refuse_divergence
from robust_nas.training.schedules import cosine

READ_EVERY = 20  # steps
REMEDY = "A smaller search.weights.learning_rate or search.weights.clip_norm may help"
OF_ALPHAS = "A smaller search.alphas.learning_rate may help"
HALVES: tuple[Half, ...] = ("weights", "alphas")


def search(strategy: OneShotStrategy, context: SearchContext, first_epoch: int = 0) -> SearchOutcome:
    """Return what a one-shot strategy finds on the images, half for weights, half for alphas.

    Continues from the run's checkpoint where there is one; with several ranks each takes its rows of every batch.
    A `first_epoch` above 0 is for timing the steps of a later epoch: nothing was learned before it.
    Raises `DivergenceError` when a loss or alpha stops being finite; the checkpoint before it stays.
    """
    if strategy.short_trainings and context.ranks.count > 1:
        raise ConfigError(
            f"search.short_trainings: got {strategy.short_trainings} with {context.ranks.count} ranks; short trainings "
            "are of one process: 0 is needed"
        )
    with strategy.session(context):
        loop = _Loop(strategy, context)
        loop.epoch = first_epoch
        loop.restore()
        return loop.run_to_end()


class _Part(NamedTuple):
    """This rank's rows of the batch of a half: images `[B, C, H, W]`, labels `[B]`; `whole` is that of all ranks."""

    images: Tensor
    labels: Tensor
    whole: int


class _Measured(NamedTuple):
    """What a step measured: `values` on the device are the strategy's columns, then all alphas."""

    known: dict[str, Any]  # epoch, step, stage, learning_rate
    absent: frozenset[str]  # columns that this step does not have
    values: Tensor


class _Loop:
    """The state of one search: everything that a checkpoint holds."""

    def __init__(self, strategy: OneShotStrategy, context: SearchContext) -> None:
        self.strategy, self.context, self.ranks = strategy, context, context.ranks
        images = context.images
        device = images.pixels.device
        strategy.refuse_space(context.space)
        supernet = strategy.build_supernet(
            context.space,
            classes=context.classes,
            mean=context.mean,
            std=context.std,
            seed=context.seed,
            execution=context.execution,
        ).to(device)
        if self.ranks.count > 1 and context.synchronise:
            synchronise(supernet)
        self.generator = BatchGenerator(device)
        self.generator.manual_seed(context.seed)
        self.search = OneShotSearch(
            strategy, channels_last(supernet), context.space, self.ranks, self.generator
        )
        self.augmentation = strategy.augment or context.augmentation
        self.halves = [images.subset(indices) for indices in split(images.labels, 0.5, context.seed)]
        orders = [batches(len(half), strategy.batch_size, seed=0, epoch=0) for half in self.halves]
        self.steps = min(len(order) for order in orders)
        self.ranks.refuse_small(min(len(order[0]) for order in orders), "search.batch_size")
        self.epoch = self.step = 0
        self.seconds = 0.0
        self.last: dict[str, Any] = {}
        self.began = self.saved = time.perf_counter()
        self.measured: list[_Measured] = []
        self.collapse = CollapseStop(strategy.stop_on_collapse, context.space)

    def run_to_end(self) -> SearchOutcome:
        """Return the outcome after the last epoch."""
        strategy, search, total = self.strategy, self.search, self.strategy.epochs * self.steps
        while self.epoch < strategy.epochs and self.collapse.stopped is None:
            self._begin_epoch()
            warm = self.epoch < strategy.warmup_epochs
            step = strategy.warm_up_step if warm else strategy.step
            while self.step < self.steps:
                if self.ranks.first_decides(
                    time.perf_counter() - self.saved >= self.context.checkpoint_seconds
                ):
                    self.save()
                    self.saved = time.perf_counter()
                self.measured.append(self._measure(step(search, self.draw)))
                self.step += 1
                if len(self.measured) == READ_EVERY or self.step == self.steps:
                    self.read()
                note = f"epoch {self.epoch + 1}/{strategy.epochs}"
                note += f", {strategy.note(self.last)}" if self.last else ""
                self.context.progress("search", self.epoch * self.steps + self.step, total, note)
            if not warm:
                self.last = self.collapse.end_epoch(search.supernet, self.last)
            self.epoch, self.step = self.epoch + 1, 0
        search.mark_changed()
        self.save()
        alphas = {name: alpha.detach() for name, alpha in search.alphas.items()}
        weights = strategy.edge_weights(search.space, alphas)
        architecture = self._derived(alphas)
        fitness = self._fitness(architecture, weights)
        return SearchOutcome(
            architecture,
            self._elapsed(),
            self.last,
            {kind: rows.tolist() for kind, rows in weights.items()},
            strategy.source_weights(search.space, alphas),
            self.collapse.stopped,
            fitness=fitness,
        )

    def _fitness(self, architecture: CellArchitecture, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return how fit the supernet is to decide; nothing of the search changes."""
        strategy, search, context = self.strategy, self.search, self.context
        strategy.settle(search)
        # As many at once as the search attacks in a step: both halves.
        weights_half, alphas_half = self.halves
        images = FitnessImages.of(weights_half, alphas_half, context.seed, 2 * strategy.batch_size)
        found = measure_fitness(strategy, search, images, architecture, weights, context.classes)
        if strategy.short_trainings:
            found["rank_correlation"] = rank_correlation(strategy, search, context, images)
        return found

    def _derived(self, alphas: Mapping[str, Tensor]) -> CellArchitecture:
        """Return the architecture of the present supernet by the strategy's options."""
        strategy, search, context = self.strategy, self.search, self.context
        if strategy.derive_by == "perturbation":
            half = self.halves[HALVES.index("alphas")]
            drawn = attacked_batches(search, half, strategy.batch_size, context.seed)
            scores = perturbation_scores(search, drawn, context.progress)
        elif strategy.max_skips is not None:
            weights = strategy.derivation_weights(search.space, alphas)
            scores = {kind: Scores(rows) for kind, rows in weights.items()}
        else:
            return strategy.derive(search, alphas, context.name)
        return derived(search, scores, context.name, strategy.max_skips)

    def _begin_epoch(self) -> None:
        weights = self.strategy.weights
        self.learning_rate = cosine(
            self.epoch, self.strategy.epochs, weights.learning_rate, weights.min_learning_rate
        )
        for group in self.search.weight_optimiser.param_groups:
            group["lr"] = self.learning_rate
        warm_up = self.strategy.warmup_epochs
        for group in self.search.alpha_optimiser.param_groups:
            group["lr"] = self.strategy.alphas.rate(
                max(0, self.epoch - warm_up), self.strategy.epochs - warm_up
            )
        seed = 2 * self.context.seed
        self.orders = [
            batches(len(half), self.strategy.batch_size, seed=seed + which, epoch=self.epoch)
            for which, half in enumerate(self.halves)
        ]
        self.search.epoch = self.epoch
        self.strategy.begin_epoch(self.search)

    def draw(self, *halves: Half) -> list[Batch]:
        """Return this rank's rows of the step's batch of each half, attacked now where the strategy reads that.

        All are attacked in one batch; by an attack that takes its own batch statistics, one half after the other.
        """
        parts = {half: self._natural(half) for half in halves}
        read = [half for half in halves if half == "alphas" or self.strategy.attacks_weights_half]
        groups = [read] if self.strategy.attack.bn == "eval" else [[half] for half in read]
        attacked: dict[Half, Tensor] = {}
        for group in groups:
            attacked |= self._attacked({half: parts[half] for half in group})
        return [
            Batch(
                part.images,
                attacked.get(half, part.images),
                part.labels,
                self.ranks.share(part.whole),
                part.whole,
            )
            for half, part in parts.items()
        ]

    def _natural(self, half: Half) -> _Part:
        """Return this rank's rows of the step's batch of a half, augmented."""
        which = HALVES.index(half)
        part = self.halves[which].subset(self.orders[which][self.step])
        rows = self.ranks.rows(len(part))
        self.generator.whole, self.generator.rows = len(part), rows
        images = augment(part.pixels, self.augmentation, self.generator)[rows]
        return _Part(images.contiguous(memory_format=torch.channels_last), part.labels[rows], len(part))

    def _attacked(self, parts: Mapping[Half, _Part]) -> dict[Half, Tensor]:
        """Return the images of some halves, attacked in one batch."""
        if not parts:
            return {}
        images = torch.cat([part.images for part in parts.values()])
        labels = torch.cat([part.labels for part in parts.values()])
        wholes = [part.whole for part in parts.values()]
        generator = self.generator
        generator.whole, generator.rows = sum(wholes), together([self.ranks.rows(n) for n in wholes], wholes)
        attacked = self.search.attack(images, labels, generator)
        found = torch.split(attacked, [len(part.labels) for part in parts.values()])
        return dict(zip(parts, found, strict=True))

    def _measure(self, scalars: Mapping[str, Tensor]) -> _Measured:
        """Return the scalars of a step and the alphas after it, without a synchronisation."""
        known = {
            "epoch": self.epoch,
            "step": self.epoch * self.steps + self.step,
            "stage": self.search.stage,
            "learning_rate": self.learning_rate,
        }
        columns = self.strategy.columns
        zero = torch.zeros_like(next(iter(scalars.values())))
        values = torch.stack([scalars.get(column, zero) for column in columns])
        alphas = [alpha.detach().reshape(-1) for alpha in self.search.alphas.values()]
        absent = frozenset(column for column in columns if column not in scalars)
        return _Measured(known, absent, torch.cat([values, *alphas]))

    def read(self) -> None:
        """Read back and log what the last steps measured. Raises `DivergenceError` where it was not sound."""
        if not self.measured:
            return
        rows = torch.stack([one.values for one in self.measured]).cpu()  # one synchronisation
        for one, row in zip(self.measured, rows, strict=True):
            self.last = self._record(one, row)
            step = self.last["step"] % self.steps
            where = f"{self.context.run.folder}: search, epoch {self.last['epoch'] + 1}, step {step}"
            self._refuse_divergence(where)
            self.context.run.log(self.last)
        self.measured.clear()

    def _refuse_divergence(self, where: str) -> None:
        """Raise `DivergenceError` for the last record, with the key of the step that broke first.

        A step takes the losses of the alphas' half, moves the alphas, takes the weights' loss, and moves the weights:
        alphas that are broken next to sound losses of their half were broken by their own step.
        """
        watched = dict(self.strategy.watched(self.last))
        own = {"loss_weights": watched.pop("loss_weights", None)}
        alphas = {key: watched.pop(key) for key in list(watched) if key.startswith(ENTROPY)}
        for values, remedy in ((watched, REMEDY), (alphas, OF_ALPHAS), (own, REMEDY)):
            refuse_divergence(values, where, remedy)

    def _record(self, measured: _Measured, values: Tensor) -> dict[str, Any]:
        """Return one line of `metrics.jsonl` from values on the host: also entropy (nats) and skips per kind."""
        strategy, search = self.strategy, self.search
        count = len(strategy.columns)
        scalars = dict(zip(strategy.columns, values[:count].tolist(), strict=True))
        pieces = torch.split(values[count:], [alpha.numel() for alpha in search.alphas.values()])
        alphas = {
            name: piece.view(alpha.shape)
            for (name, alpha), piece in zip(search.alphas.items(), pieces, strict=True)
        }
        logits = strategy.edge_logits(search.space, alphas)
        log_weights = torch.stack(list(logits.values())).log_softmax(2)  # [kinds, E, O]
        entropies = -(log_weights.exp() * log_weights).sum(2).mean(1)
        record = {
            **measured.known,
            **{name: None if name in measured.absent else value for name, value in scalars.items()},
            "entropy": dict(zip(logits, entropies.tolist(), strict=True)),
            "skips": skips(strategy.derive(search, alphas, "derived")),
        }
        if (record["step"] + 1) % self.steps == 0:  # what the verdict on the search reads
            weights = strategy.edge_weights(search.space, alphas)
            record["edge_weights"] = {kind: _rounded(rows) for kind, rows in weights.items()}
        return record

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self.began

    def save(self) -> None:
        """Write the checkpoint. Raises `DivergenceError` where the supernet is not fit to be kept."""
        self.read()
        search = self.search
        where = f"{self.context.run.folder}: search, before epoch {self.epoch + 1}, step {self.step}"
        refuse_broken_weights([search.supernet], where, REMEDY)
        self.ranks.refuse_difference(
            {**search.supernet.state_dict(), "draws": self.generator.get_state()}, where
        )
        self.context.run.save_checkpoint(
            {
                "job": "search",
                "epoch": self.epoch,
                "step": self.step,
                "seconds": self._elapsed(),
                "last": self.last,
                "supernet": search.supernet.state_dict(),
                "weight_optimiser": search.weight_optimiser.state_dict(),
                "alpha_optimiser": search.alpha_optimiser.state_dict(),
                "generator": self.generator.get_state(),
                "strategy": self.strategy.state(search),
                "collapse": self.collapse.state(),
            }
        )

    def restore(self) -> None:
        """Put the run's checkpoint back where there is one. Raises `CheckpointError`."""
        run, search = self.context.run, self.search
        state = self.ranks.run_on_all(run.load_checkpoint)
        if state is None:
            return
        if state.get("job") != "search":
            raise CheckpointError(
                f"{run.folder}: its checkpoint is of job {state.get('job')!r}, not of a one-shot search"
            )
        with run.restoring():
            search.supernet.load_state_dict(state["supernet"])
            restore_optimiser(search.weight_optimiser, state["weight_optimiser"])
            restore_optimiser(search.alpha_optimiser, state["alpha_optimiser"])
            self.generator.restore(state["generator"])
            self.strategy.restore(search, state.get("strategy", {}))
            self.collapse.restore(state.get("collapse", {}))
            self.epoch, self.step = state["epoch"], state["step"]
            self.seconds, self.last = state["seconds"], state["last"]
        search.mark_changed()


def _rounded(weights: Tensor) -> list[list[float]]:
    """Return edge weights `[E, O]` to six digits, for a record."""
    return [[round(weight, 6) for weight in row] for row in weights.tolist()]
