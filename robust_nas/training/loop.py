"""The training loop: one for every loss, step and hook; keeps an epoch by its accuracy on validation.

    every batch:   hooks mixed; augment; hooks augmented; hooks before_step; the step leaves gradients;
                   hooks after_backward, the last first; sum of ranks; clip; SGD
    every epoch:   hooks end_epoch; validate where it is due, as the hooks apply the weights; keep the best;
                   hooks validated, which may end the training

Killed at any instant, it resumes to the same bits (`state.py`). What a step measures stays on the device, and is read
back with that of other steps. With several ranks each takes its rows of every batch; gradients are summed over the
ranks, weighted by their shares of the batch.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from robust_nas.attacks.compiling import many_gradients
from robust_nas.data import Augment, Images, augment
from robust_nas.data.order import batches
from robust_nas.distributed import ALONE, Ranks
from robust_nas.errors import CheckpointError
from robust_nas.layers.batch_norm import local_statistics
from robust_nas.layers.depthwise import quickened
from robust_nas.nets import CellNetwork
from robust_nas.run_folder import Progress, Run, silent
from robust_nas.training.context import Batch
from robust_nas.training.divergence import REMEDY, refuse_broken_weights, refuse_divergence
from robust_nas.training.hook import TrainingHook
from robust_nas.training.recipe import Training
from robust_nas.training.state import TrainingState
from robust_nas.training.validation import BATCH, validate, validation_images

READ_EVERY = 20  # steps


@dataclass(frozen=True)
class TrainingOutcome:
    """The kept weights, their epoch, its validation accuracies (0..1), and the cost."""

    state: dict[str, Tensor]
    epoch: int  # from 0
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
    hooks: Sequence[TrainingHook] = (),
    remedy: str = REMEDY,
) -> TrainingOutcome:
    """Train `network` on `images` (both on one device) and return the best weights by `validation`.

    `hooks` are called after those of the recipe; `remedy` names the key of the learning rate where it is not the
    recipe's own. Continues from the run's checkpoint where there is one. Raises `DivergenceError` when the loss stops
    being finite; the checkpoint before it stays.
    """
    job = _Training(run, network, images, validation, options, augmentation, seed, ranks, hooks, remedy)
    job.restore()
    steps = job.steps * job.state.step.replays
    ahead = input_gradients(options, steps, len(job.validation))
    with quickened(network), many_gradients(ahead):
        return job.loop(checkpoint_seconds, progress)


def input_gradients(options: Training, steps: int, validation: int) -> int:
    """Return how many input gradients a training of `steps` an epoch takes of the attacks that may be compiled.

    `validation` is the number of validation images.
    """
    batches_of = (
        (options.loss.inner_attack, options.epochs * steps),
        (options.validation_attack, len(options.validated_epochs) * -(-validation // BATCH)),
    )
    return sum(
        attack.input_gradients * count
        for attack, count in batches_of
        if attack is not None and attack.compile != "never" and not attack.not_compiled
    )


class _Training:
    """One training: its state, and what it works on."""

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
        hooks: Sequence[TrainingHook] = (),
        remedy: str = REMEDY,
    ) -> None:
        self.remedy = remedy
        self.run, self.options, self.augmentation = run, options, augmentation
        self.images, self.seed, self.ranks = images, seed, ranks
        self.validation = validation_images(validation, options.validation_images, seed)
        positions = batches(len(images), options.batch_size, seed=0, epoch=0)
        self.steps, self.whole = len(positions), len(positions[0])
        ranks.refuse_small(self.whole, "training.batch_size")
        options.loss.refuse_ranks(ranks.count)
        options.loss.refuse_network(network)
        self.state = TrainingState(
            network,
            options,
            device=images.pixels.device,
            seed=seed,
            steps=self.steps,
            batch_size=self.whole,
            ranks=ranks,
            hooks=hooks,
            images=images,
            validation=self.validation,
        )
        self.measured: list[Tensor] = []  # loss and number right of steps that were not read back yet

    def _where(self, step: int | None = None) -> str:
        position = self.state.position if step is None else step
        return f"{self.run.folder}: training, epoch {self.state.epoch + 1}, step {position}"

    def _refuse_broken_weights(self) -> None:
        refuse_broken_weights(
            dict.fromkeys((self.state.network, self.state.model)), self._where(), self.remedy
        )

    def loop(self, checkpoint_seconds: float, progress: Progress) -> TrainingOutcome:
        """Run to the last epoch and return the best weights."""
        state, options = self.state, self.options
        total = options.epochs * self.steps
        began = saved = time.perf_counter()
        earlier = state.seconds
        note = ""
        while state.epoch < options.epochs and not state.stopped:
            order = batches(len(self.images), options.batch_size, seed=self.seed, epoch=state.epoch)
            if options.drop_path:
                cells = cast(CellNetwork, state.network)
                cells.set_drop_path(options.drop_path * state.epoch / options.epochs, state.generator)
            while state.position < self.steps:
                if self.ranks.first_decides(time.perf_counter() - saved >= checkpoint_seconds):
                    state.seconds = earlier + time.perf_counter() - began
                    self.save()
                    saved = time.perf_counter()
                self._one_step(order[state.position])
                state.position += 1
                if len(self.measured) == READ_EVERY or state.position == self.steps:
                    self.read()
                seen = state.sums["seen"]
                said = f"epoch {state.epoch + 1}/{options.epochs}"
                said += f", loss {state.sums['loss'] / seen:.3f}" if seen else ""
                progress("train", state.epoch * self.steps + state.position, total, f"{said}{note}")
            record = self._end_epoch()
            if record["robust"] is not None:
                note = (
                    f", validation {100 * record['clean']:.1f} % clean, {100 * record['robust']:.1f} % robust"
                )
        state.seconds = earlier + time.perf_counter() - began
        self.save()
        best = state.best
        if best is None:
            raise CheckpointError(f"{self.run.folder}: the checkpoint is finished but holds no best epoch")
        return TrainingOutcome(best["state"], best["epoch"], best["clean"], best["robust"], state.seconds)

    def _one_step(self, indices: Tensor) -> None:
        """Move the weights by one batch, as often as the step uses it."""
        options, state = self.options, self.state
        factor = options.schedule.factor_at(state.epoch + state.position / self.steps, options.epochs)
        for group in state.optimiser.param_groups:
            group["lr"] = options.learning_rate * factor
        batch = self._batch(indices)
        measured = []
        for _ in range(state.step.replays):
            state.network.train()
            state.optimiser.zero_grad()
            for hook in state.hooks:
                hook.before_step(state.step.attacked(batch))
            found = state.step.gradients(batch)
            for hook in reversed(state.hooks):  # the last that moved the weights puts them back first
                hook.after_backward()
            measured.append(self._reduced(torch.stack([found.loss, found.correct.to(found.loss.dtype)])))
            if options.clip_norm is not None:
                for network in state.step.clipped_together():
                    torch.nn.utils.clip_grad_norm_(network.parameters(), options.clip_norm)
            state.optimiser.step()
            if state.average is not None:
                state.average.update_parameters(state.network)
        self.measured.append(torch.stack(measured).mean(0))

    def _batch(self, indices: Tensor) -> Batch:
        """Return this rank's rows of a batch, augmented; the generator knows which ones they are."""
        part, generator = self.images.subset(indices), self.state.generator
        for hook in self.state.hooks:
            part, indices = hook.mixed(part, indices)
        rows, share = self.ranks.rows(self.whole), self.ranks.share(self.whole)
        generator.whole, generator.rows = self.whole, rows
        x = augment(part.pixels, self.augmentation, generator)
        for hook in self.state.hooks:
            x = hook.augmented(x)
        x = x[rows]
        return Batch(x.contiguous(memory_format=torch.channels_last), part.labels[rows], indices[rows], share)

    def _reduced(self, own: Tensor) -> Tensor:
        """Return the sum of what the ranks measured, and replace the gradients by theirs, by one message."""
        network = self.state.network
        trained = [parameter for parameter in network.parameters() if parameter.grad is not None]
        measured, *gradients = self.ranks.all_reduce_sum([own, *[cast(Tensor, p.grad) for p in trained]])
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = gradient
        self.ranks.all_reduce_mean(local_statistics(network), self.ranks.share(self.whole))
        return measured

    def read(self) -> None:
        """Read back what the last steps measured. Raises `DivergenceError` where a loss was not sound."""
        if not self.measured:
            return
        first = self.state.position - len(self.measured)
        values = torch.stack(self.measured).tolist()  # one synchronisation
        self.measured.clear()
        sums = self.state.sums
        for step, (loss, correct) in enumerate(values, start=first):
            refuse_divergence({"the loss": loss}, self._where(step), self.remedy)
            sums["loss"] += loss * self.whole
            sums["correct"] += correct
            sums["seen"] += self.whole

    def _end_epoch(self) -> dict[str, Any]:
        """Validate where it is due, keep the best, log, and move on to the next epoch. Return the record."""
        options, state = self.options, self.state
        epoch, sums = state.epoch, state.sums
        final = epoch == options.epochs - 1
        clean = robust = None
        logged: dict[str, Any] = {}
        for hook in state.hooks:
            logged |= hook.end_epoch(epoch)
        if options.is_validated(epoch) or final:
            self._refuse_broken_weights()
            with contextlib.ExitStack() as stack:
                for hook in state.hooks:
                    stack.enter_context(hook.applied())
                clean, robust = self.validate()
                state.keep(clean, robust)
            for hook in state.hooks:
                hook.validated(epoch, clean, robust)
        record = {
            "epoch": epoch,
            "loss": sums["loss"] / sums["seen"],
            "train_accuracy": sums["correct"] / sums["seen"],
            "clean": clean,
            "robust": robust,
            "learning_rate": state.optimiser.param_groups[0]["lr"],
            **logged,
        }
        self.run.log(record)
        state.next_epoch()
        return record

    def validate(self) -> tuple[float, float]:
        """Return clean and robust accuracy of the kept model on the validation split."""
        return validate(
            self.state.model,
            self.validation,
            self.options.validation_attack,
            seed=self.seed + 1,
            where=self._where(),
            remedy=self.remedy,
            ranks=self.ranks,
        )

    def save(self) -> None:
        """Write the checkpoint. Raises `DivergenceError` where loss or weights are not fit to be kept."""
        self.read()
        self._refuse_broken_weights()
        self.ranks.refuse_difference(self.state.tensors(), self._where())
        self.run.save_checkpoint(self.state.checkpoint())

    def restore(self) -> None:
        """Put the run's checkpoint back where there is one. Raises `CheckpointError`."""
        state = self.ranks.run_on_all(self.run.load_checkpoint)
        if state is None:
            return
        if state.get("job") != "train":
            raise CheckpointError(
                f"{self.run.folder}: its checkpoint is of job {state.get('job')!r}, not of a training"
            )
        with self.run.restoring():
            self.state.restore(state)
