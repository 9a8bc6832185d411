"""The training loop: one for every loss; keeps the epoch with the best robust accuracy on the validation split.

Killed at any instant, it resumes to the same bits: weights, average, optimiser, generators, position, best so far.
What a step measures stays on the device, and is read back with that of other steps. With several ranks each takes its
rows of every batch; gradients are summed over the ranks, weighted by their shares of the batch.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from robust_nas.attacks.batch_generator import BatchGenerator
from robust_nas.checkpoints import restore_optimiser
from robust_nas.data import Augment, Images, augment
from robust_nas.data.order import batches
from robust_nas.distributed import ALONE, Ranks
from robust_nas.errors import CheckpointError, DivergenceError
from robust_nas.layers.batch_norm import local_statistics
from robust_nas.nets import CellNetwork, channels_last, inference_state
from robust_nas.runs import Progress, Run, silent
from robust_nas.training.constraint import Constraint
from robust_nas.training.divergence import refuse_broken_weights, refuse_divergence
from robust_nas.training.losses.natural import cross_entropy
from robust_nas.training.options import Training
from robust_nas.training.schedules import factor

READ_EVERY = 20  # steps
REMEDY = "A smaller training.learning_rate or a clip_norm may help"

Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True)
class TrainingOutcome:
    """The kept weights, the epoch they are of, its validation accuracies (0..1), and the cost."""

    state: dict[str, Tensor]
    epoch: int
    clean: float
    robust: float
    seconds: float


def train(
    run: Run,
    network: nn.Module,
    images: Images,
    validation: Images,
    options: Training,
    augmentation: Augment,
    *,
    seed: int,
    checkpoint_seconds: float = 60.0,
    progress: Progress = silent,
    ranks: Ranks = ALONE,
    constraint: Constraint | None = None,
) -> TrainingOutcome:
    """Trains `network` on `images` (both on one device) and returns the best weights by `validation`.

    With a constraint, its penalty is added to the loss, and the weights are validated and kept as it applies them.
    Continues from the run's checkpoint where there is one. Raises `DivergenceError` when the loss stops being finite;
    the checkpoint before it stays.
    """
    job = _Training(run, network, images, validation, options, augmentation, seed, ranks, constraint)
    job.restore()
    return job.loop(checkpoint_seconds, progress)


class _Training:
    """The state of one training: everything that a checkpoint holds."""

    def __init__(
        self,
        run: Run,
        network: nn.Module,
        images: Images,
        validation: Images,
        options: Training,
        augmentation: Augment,
        seed: int,
        ranks: Ranks = ALONE,
        constraint: Constraint | None = None,
    ) -> None:
        self.ranks, self.constraint = ranks, constraint
        self.run, self.options, self.augmentation, self.seed = run, options, augmentation, seed
        self.images = images
        self.validation = validation
        if options.validation_images is not None and options.validation_images < len(validation):
            order = torch.randperm(len(validation), generator=torch.Generator().manual_seed(seed))
            self.validation = validation.subset(order[: options.validation_images])
        self.device = images.pixels.device
        self.network = channels_last(network)
        self.average: AveragedModel | None = None
        if options.ema is not None:
            self.average = AveragedModel(
                network, multi_avg_fn=_exponential(options.ema, self._updates), use_buffers=True
            )
        self.optimiser = torch.optim.SGD(
            network.parameters(),
            options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            nesterov=options.nesterov,
        )
        self.generator = BatchGenerator(self.device)
        self.generator.manual_seed(seed)
        self.measured: list[Tensor] = []  # loss and number right of steps that were not read back yet
        self.epoch = self.step = 0
        self.seconds = 0.0
        self.sums = {"loss": 0.0, "correct": 0.0, "seen": 0.0}
        self.best: dict[str, Any] | None = None
        positions = batches(len(images), options.batch_size, seed=0, epoch=0)
        self.steps, self.whole = len(positions), len(positions[0])
        ranks.refuse_small(self.whole, "training.batch_size")

    @property
    def model(self) -> nn.Module:
        """The network that is validated and kept: the average where there is one."""
        return self.network if self.average is None else self.average.module

    @property
    def cells(self) -> CellNetwork:
        """The network, where the recipe asks for what only a cell network has: drop path, an auxiliary head."""
        return cast(CellNetwork, self.network)

    def _updates(self) -> int:
        return 0 if self.average is None else int(self.average.n_averaged)  # lives on the host

    def _where(self, step: int | None = None) -> str:
        return f"{self.run.folder}: training, epoch {self.epoch}, step {self.step if step is None else step}"

    def _refuse_broken_weights(self) -> None:
        refuse_broken_weights(dict.fromkeys((self.network, self.model)), self._where(), REMEDY)

    def loop(self, checkpoint_seconds: float, progress: Progress) -> TrainingOutcome:
        """Runs to the last epoch."""
        total = self.options.epochs * self.steps
        began = saved = time.perf_counter()
        earlier = self.seconds
        note = ""
        while self.epoch < self.options.epochs:
            order = batches(len(self.images), self.options.batch_size, seed=self.seed, epoch=self.epoch)
            if self.options.drop_path:
                self.cells.set_drop_path(
                    self.options.drop_path * self.epoch / self.options.epochs, self.generator
                )
            while self.step < self.steps:
                if self.ranks.first_decides(time.perf_counter() - saved >= checkpoint_seconds):
                    self.seconds = earlier + time.perf_counter() - began
                    self.save()
                    saved = time.perf_counter()
                self._one_step(order[self.step])
                self.step += 1
                if len(self.measured) == READ_EVERY or self.step == self.steps:
                    self.read()
                seen = self.sums["seen"]
                loss = f"loss {self.sums['loss'] / seen:.3f}" if seen else ""
                progress("train", self.epoch * self.steps + self.step, total, f"{loss}{note}")
            record = self._end_epoch()
            if record["robust"] is not None:
                note = (
                    f", validation {100 * record['clean']:.1f} % clean, {100 * record['robust']:.1f} % robust"
                )
        self.seconds = earlier + time.perf_counter() - began
        self.save()
        if self.best is None:
            raise CheckpointError(f"{self.run.folder}: the checkpoint is finished but holds no best epoch")
        return TrainingOutcome(
            self.best["state"], self.best["epoch"], self.best["clean"], self.best["robust"], self.seconds
        )

    def _one_step(self, indices: Tensor) -> None:
        options = self.options
        progress = self.epoch + self.step / self.steps
        for group in self.optimiser.param_groups:
            group["lr"] = options.learning_rate * factor(options.schedule, progress, options.epochs)
        part = self.images.subset(indices)
        rows, share = self.ranks.rows(self.whole), self.ranks.share(self.whole)
        self.generator.whole, self.generator.rows = self.whole, rows
        x = augment(part.pixels, self.augmentation, self.generator)[rows].contiguous(
            memory_format=torch.channels_last
        )
        labels = part.labels[rows]
        self.network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            value = options.loss(self.network, x, labels, self.generator)
            loss = value.loss
            if options.auxiliary_weight:
                logits = self.cells.auxiliary_logits(x)
                loss = loss + options.auxiliary_weight * cross_entropy(logits, labels)
            loss = share * loss
        self.optimiser.zero_grad()
        whole = loss if self.constraint is None else loss + share * self.constraint.penalty()
        whole.backward()  # type: ignore[no-untyped-call]
        trained = [parameter for parameter in self.network.parameters() if parameter.grad is not None]
        correct = (value.logits.argmax(1) == labels).sum()
        own = torch.stack([loss.detach(), correct.to(loss.dtype)])
        measured, *gradients = self.ranks.all_reduce_sum([own, *[cast(Tensor, p.grad) for p in trained]])
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = gradient
        self.ranks.all_reduce_mean(local_statistics(self.network), share)
        self.measured.append(measured)
        if options.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), options.clip_norm)
        self.optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.network)

    def read(self) -> None:
        """Reads back what the last steps measured. Raises `DivergenceError` where a loss was not sound."""
        if not self.measured:
            return
        first = self.step - len(self.measured)
        values = torch.stack(self.measured).tolist()  # one synchronisation
        self.measured.clear()
        for step, (loss, correct) in enumerate(values, start=first):
            refuse_divergence({"the loss": loss}, self._where(step), REMEDY)
            self.sums["loss"] += loss * self.whole
            self.sums["correct"] += correct
            self.sums["seen"] += self.whole

    def _end_epoch(self) -> dict[str, Any]:
        """Validates where it is due, keeps the best, logs, and moves on to the next epoch."""
        options, epoch = self.options, self.epoch
        final = epoch == options.epochs - 1
        due = epoch >= options.validate_from and (epoch - options.validate_from) % options.validate_every == 0
        clean = robust = None
        logged = {} if self.constraint is None else self.constraint.end_epoch(epoch)
        if due or final:
            self._refuse_broken_weights()
            with contextlib.nullcontext() if self.constraint is None else self.constraint.applied():
                clean, robust = self.validate()
                if self.best is None or (robust, clean) > (self.best["robust"], self.best["clean"]):
                    state = {name: tensor.clone() for name, tensor in inference_state(self.model).items()}
                    self.best = {"epoch": epoch, "clean": clean, "robust": robust, "state": state}
        record = {
            "epoch": epoch,
            "loss": self.sums["loss"] / self.sums["seen"],
            "train_accuracy": self.sums["correct"] / self.sums["seen"],
            "clean": clean,
            "robust": robust,
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            **logged,
        }
        self.run.log(record)
        self.epoch, self.step = epoch + 1, 0
        self.sums = dict.fromkeys(self.sums, 0.0)
        return record

    def validate(self) -> tuple[float, float]:
        """Clean and robust accuracy of the kept model on the validation split; the attack is seeded anew."""
        model = self.model.eval()
        generator = BatchGenerator(self.device)
        generator.manual_seed(self.seed + 1)
        counts = torch.zeros(3, dtype=torch.int64, device=self.device)  # clean, robust, not finite
        for indices in torch.split(torch.arange(len(self.validation)), 256):
            part = self.validation.subset(indices)
            # A batch with fewer images than ranks is attacked by all of them, and counted by rank 0.
            split = len(part) >= self.ranks.count
            rows = self.ranks.rows(len(part)) if split else slice(0, len(part))
            generator.whole, generator.rows = len(part), rows
            x, labels = part.float()[rows].contiguous(memory_format=torch.channels_last), part.labels[rows]
            attacked = self.options.validation_attack(model, x, labels, generator)
            with torch.no_grad():
                logits = model(x)
                right = logits.argmax(1) == labels
                both = right & (model(attacked).argmax(1) == labels)
                if split or self.ranks.first:
                    counts += torch.stack([right.sum(), both.sum(), (~logits.isfinite()).sum()])
        clean, robust, broken = self.ranks.all_reduce_sum([counts])[0].tolist()
        if broken:
            raise DivergenceError(
                f"{self._where()}: diverged, the network's logits on the validation split are not finite; "
                f"the last good checkpoint stays. {REMEDY}"
            )
        return clean / len(self.validation), robust / len(self.validation)

    def save(self) -> None:
        """Writes the checkpoint. Raises `DivergenceError` where loss or weights are not fit to be kept."""
        self.read()
        self._refuse_broken_weights()
        state = {**self.network.state_dict(), **self.model.state_dict(prefix="average.")}
        self.ranks.refuse_difference({**state, "draws": self.generator.get_state()}, self._where())
        self.run.save_checkpoint(
            {
                "job": "train",
                "epoch": self.epoch,
                "step": self.step,
                "seconds": self.seconds,
                "sums": self.sums,
                "best": self.best,
                "network": self.network.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "generator": self.generator.get_state(),
                "constraint": None if self.constraint is None else self.constraint.state(),
            }
        )

    def restore(self) -> None:
        """Puts the run's checkpoint back where there is one. Raises `CheckpointError`."""
        state = self.ranks.run_on_all(self.run.load_checkpoint)
        if state is None:
            return
        if state.get("job") != "train":
            raise CheckpointError(
                f"{self.run.folder}: its checkpoint is of job {state.get('job')!r}, not of a training"
            )
        with self.run.restoring():
            self.network.load_state_dict(state["network"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            restore_optimiser(self.optimiser, state["optimiser"])
            self.generator.set_state(state["generator"])
            if self.constraint is not None:
                self.constraint.restore(state["constraint"])
            self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
            self.sums, self.best = state["sums"], state["best"]
            if self.best is not None:
                _check_best(self.best["state"], inference_state(self.model))


def _check_best(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raises `ValueError` when the best weights of a checkpoint are not those of this network."""
    shapes = [{name: tuple(tensor.shape) for name, tensor in state.items()} for state in (found, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError("its best epoch is of another network")


def _exponential(decay: float, count: Callable[[], int]) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """The average's update: decay min(d, (1 + n) / (10 + n)) after n updates, so that the start is forgotten.

    n is asked of the host by `count`: torch hands over a copy on the device, which would have to be waited for.
    """

    @torch.no_grad()
    def update(averages: Tensors, values: Tensors, _: Tensor | int) -> None:
        updates = count()
        weight = 1 - min(decay, (1 + updates) / (10 + updates))
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value.to(average.dtype), weight)
            else:
                average.copy_(value)

    return update
