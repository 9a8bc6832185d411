"""The loop of AI-GAN's training: batches, validation, checkpoints; the generator of the best epoch is kept.

    every batch:   augment; draw targets; a step of the discriminator, a step of the generator (`ai_gan.py`)
    every epoch:   success on the validation split, one fixed target for each image; keep the best

Killed at any instant, it resumes to the same bits. The victim is frozen and in eval mode throughout.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.attacks import ThreatModel
from robust_nas.attacks.attacked_model import attack_mode
from robust_nas.attacks.batch_generator import BatchGenerator
from robust_nas.attacks.losses import ce
from robust_nas.attacks.norms import project
from robust_nas.checkpoints import restore_optimiser
from robust_nas.data import Augment, Images, augment
from robust_nas.data.order import batches
from robust_nas.errors import AttackError, CheckpointError
from robust_nas.nets.ai_gan import Discriminator, Generator
from robust_nas.nets.build import seeded
from robust_nas.nets.digest import model_digest
from robust_nas.run_folder import Progress, Run, silent
from robust_nas.training.ai_gan import AIGANStep, AIGANTraining, Losses
from robust_nas.training.divergence import refuse_broken_weights, refuse_divergence, remedy_of
from robust_nas.training.validation import BATCH, validation_images

JOB = "train-attack"
READ_EVERY = 20  # steps
REMEDY = remedy_of("method.learning_rate")


@dataclass(frozen=True)
class GeneratorOutcome:
    """The kept generator, its epoch, its success on the validation split (0..1), and the seconds."""

    state: dict[str, Tensor]
    epoch: int  # from 0
    success: float
    pairs: int  # of image and target that the success was counted on
    seconds: float


@dataclass(frozen=True)
class AimedImages:
    """Images with a target class each: those that the victim does not answer with it as they are."""

    images: Tensor  # [B, C, H, W] float in 0..1
    targets: Tensor  # [B]


def aimed(
    victim: nn.Module, images: Images, classes: int, targets: Callable[[Tensor], Tensor]
) -> AimedImages:
    """Return the images with a target that `targets` makes of the labels `[B]`, on the images' device."""
    x, aims = images.float(), targets(images.labels)
    with torch.no_grad(), attack_mode(victim):
        answers = torch.cat([victim(part.clone()).argmax(1) for part in torch.split(x, BATCH)])
    rows = aims != answers
    return AimedImages(x[rows], aims[rows])


def success(
    generator: Generator, victim: nn.Module, aimed: AimedImages, threat_model: ThreatModel
) -> tuple[float, float]:
    """Return the share of images that the victim answers with their target, and the mean cross-entropy, nats."""
    hits, loss = 0, 0.0
    with torch.no_grad(), attack_mode(victim):
        for x, targets in zip(
            torch.split(aimed.images, BATCH), torch.split(aimed.targets, BATCH), strict=True
        ):
            attacked = project(x + generator(x, targets), x, threat_model.eps, threat_model.norm)
            logits = victim(attacked).float()
            hits += int((logits.argmax(1) == targets).sum())
            loss += float(ce(logits, targets).sum())
    return hits / len(aimed.targets), loss / len(aimed.targets)


def train_generator(
    run: Run,
    victim: nn.Module,
    images: Images,
    validation: Images,
    options: AIGANTraining,
    threat_model: ThreatModel,
    augmentation: Augment,
    *,
    classes: int,
    seed: int,
    checkpoint_seconds: float = 60.0,
    progress: Progress = silent,
) -> GeneratorOutcome:
    """Train a generator against `victim` on `images` (all on one device) and return the best one by `validation`.

    Continues from the run's checkpoint where there is one. Raises `DivergenceError` when a loss stops being finite;
    the checkpoint before it stays.
    """
    before = model_digest(victim)
    with attack_mode(victim):
        job = _Training(run, victim, images, validation, options, threat_model, augmentation, classes, seed)
        job.restore()
        found = job.loop(checkpoint_seconds, progress)
    if model_digest(victim) != before:
        raise AttackError(
            f"{run.folder}: the victim has changed while its generator was trained; a module that "
            "learns in eval mode cannot be a victim"
        )
    return found


class _Training:
    """One training: networks, optimisers, draws, position, sums of the epoch, and the best epoch so far."""

    def __init__(
        self,
        run: Run,
        victim: nn.Module,
        images: Images,
        validation: Images,
        options: AIGANTraining,
        threat_model: ThreatModel,
        augmentation: Augment,
        classes: int,
        seed: int,
    ) -> None:
        self.run, self.victim, self.images, self.options = run, victim, images, options
        self.augmentation, self.seed, self.threat_model = augmentation, seed, threat_model
        device, shape = images.pixels.device, tuple(images.pixels.shape[1:])
        with seeded(seed):
            self.generator = Generator(
                (shape[0], shape[1], shape[2]),
                classes,
                norm=threat_model.norm,
                eps=threat_model.eps,
                widths=options.widths,
                blocks=options.blocks,
            ).to(device)
            self.discriminator = Discriminator(shape[0]).to(device)
        self.step = AIGANStep(options, threat_model, victim, self.generator, self.discriminator)
        self.draws = BatchGenerator(device)
        self.draws.manual_seed(seed)
        few = validation_images(validation, options.validation_images, seed)
        self.aimed = aimed(victim, few, classes, lambda labels: _round_robin(labels, classes))
        if len(self.aimed.targets) == 0:
            raise AttackError(
                f"{run.folder}: no validation image is left to aim at, the victim answers with every target already"
            )
        self.epoch = self.position = 0  # the next batch is number `position` of the epoch
        self.seconds = 0.0
        self.sums = self._zeros()
        self.best: dict[str, Any] | None = None
        self.measured: list[Tensor] = []  # losses of steps that were not read back yet

    @staticmethod
    def _zeros() -> dict[str, float]:
        return {**dict.fromkeys(Losses._fields, 0.0), "steps": 0.0}

    def loop(self, checkpoint_seconds: float, progress: Progress) -> GeneratorOutcome:
        """Run to the last epoch and return the best generator."""
        options = self.options
        began = saved = time.perf_counter()
        earlier = self.seconds
        note = ""
        while self.epoch < options.epochs:
            order = batches(len(self.images), options.batch_size, seed=self.seed, epoch=self.epoch)
            total = options.epochs * len(order)
            while self.position < len(order):
                if time.perf_counter() - saved >= checkpoint_seconds:
                    self.seconds = earlier + time.perf_counter() - began
                    self.save()
                    saved = time.perf_counter()
                self._one_step(order[self.position], len(order))
                self.position += 1
                if len(self.measured) == READ_EVERY or self.position == len(order):
                    self.read()
                steps = self.sums["steps"]
                said = f"epoch {self.epoch + 1}/{options.epochs}, stage {options.stage(self.epoch)}"
                said += f", loss {self.sums['loss'] / steps:.3f}" if steps else ""
                progress("train attack", self.epoch * len(order) + self.position, total, said + note)
            note = f", success {100 * self._end_epoch():.1f} %"
        self.seconds = earlier + time.perf_counter() - began
        self.save()
        best = self.best
        if best is None:
            raise CheckpointError(f"{self.run.folder}: the checkpoint is finished but holds no best epoch")
        return GeneratorOutcome(
            best["state"], best["epoch"], best["success"], len(self.aimed.targets), self.seconds
        )

    def _one_step(self, indices: Tensor, steps: int) -> None:
        options = self.options
        factor = options.schedule.factor_at(self.epoch + self.position / steps, options.epochs)
        for optimiser in self.step.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = options.learning_rate * factor
        part = self.images.subset(indices)
        x = augment(part.pixels, self.augmentation, self.draws)
        found = self.step(x, part.labels, options.stage(self.epoch), self.draws)
        self.measured.append(torch.stack(found))

    def _where(self, step: int | None = None) -> str:
        position = self.position if step is None else step
        return f"{self.run.folder}: training, epoch {self.epoch + 1}, step {position}"

    def read(self) -> None:
        """Read back what the last steps measured. Raises `DivergenceError` where a loss was not sound."""
        if not self.measured:
            return
        first = self.position - len(self.measured)
        rows = torch.stack(self.measured).tolist()  # one synchronisation
        self.measured.clear()
        for step, row in enumerate(rows, start=first):
            values = dict(zip(Losses._fields, row, strict=True))
            refuse_divergence(
                {f"the {name} loss": value for name, value in values.items()}, self._where(step), REMEDY
            )
            for name, value in values.items():
                self.sums[name] += value
            self.sums["steps"] += 1

    def _end_epoch(self) -> float:
        """Validate, keep the best, log, and move on to the next epoch. Return the success."""
        self._refuse_broken_weights()
        rate, loss = success(self.generator, self.victim, self.aimed, self.threat_model)
        better = self.best is None or (rate, -loss) > (self.best["success"], -self.best["loss"])
        if better:
            state = {name: tensor.detach().cpu().clone() for name, tensor in self._state().items()}
            self.best = {"epoch": self.epoch, "success": rate, "loss": loss, "state": state}
        steps = self.sums["steps"]
        self.run.log(
            {
                "epoch": self.epoch,
                "stage": self.options.stage(self.epoch),
                **{name: self.sums[name] / steps for name in Losses._fields},
                "success": rate,
                "validation_loss": loss,
                "learning_rate": self.step.optimisers[0].param_groups[0]["lr"],
            }
        )
        self.epoch, self.position, self.sums = self.epoch + 1, 0, self._zeros()
        return rate

    def _state(self) -> dict[str, Tensor]:
        return {name: tensor.contiguous() for name, tensor in self.generator.state_dict().items()}

    def _refuse_broken_weights(self) -> None:
        refuse_broken_weights((self.generator, self.discriminator), self._where(), REMEDY)

    def save(self) -> None:
        """Write the checkpoint. Raises `DivergenceError` where losses or weights are not fit to be kept."""
        self.read()
        self._refuse_broken_weights()
        self.run.save_checkpoint(
            {
                "job": JOB,
                "epoch": self.epoch,
                "step": self.position,
                "seconds": self.seconds,
                "sums": self.sums,
                "best": self.best,
                "generator": self.generator.state_dict(),
                "discriminator": self.discriminator.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in self.step.optimisers],
                "draws": self.draws.get_state(),
            }
        )

    def restore(self) -> None:
        """Put the run's checkpoint back where there is one. Raises `CheckpointError`."""
        state = self.run.load_checkpoint()
        if state is None:
            return
        if state.get("job") != JOB:
            raise CheckpointError(
                f"{self.run.folder}: its checkpoint is of job {state.get('job')!r}, not of a training of an attack"
            )
        with self.run.restoring():
            self.generator.load_state_dict(state["generator"])
            self.discriminator.load_state_dict(state["discriminator"])
            for optimiser, own in zip(self.step.optimisers, state["optimisers"], strict=True):
                restore_optimiser(optimiser, own)
            self.draws.restore(state["draws"])
            self.epoch, self.position, self.seconds = state["epoch"], state["step"], state["seconds"]
            self.sums, self.best = state["sums"], state["best"]


def _round_robin(labels: Tensor, classes: int) -> Tensor:
    """Return a class `[B]` for each image that is not its label; every distance from the label is as frequent."""
    offsets = torch.arange(len(labels), device=labels.device) % (classes - 1)
    return (labels + 1 + offsets) % classes
