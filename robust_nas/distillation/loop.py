"""The loop of every distillation: batches, Adam, projection, validation, checkpoints; the best set is kept.

    every step:    a class-balanced batch, augmented, maybe attacked; a step of Adam on L; images back into 0..1
    now and then:  clean and robust accuracy of kernel regression on the validation split; keep the best set

What a step draws follows from the seed and its number, so a position is one number. Killed at any instant, it resumes
to the same bits. The images are learned on the scale of the kernel's inputs, u = (x - mean) / std of each channel.

B batch, n support images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_nas.attacks import ThreatModel
from robust_nas.attacks.attacked_model import attack_mode
from robust_nas.checkpoints import restore_optimiser
from robust_nas.data import Augment, Images, augment
from robust_nas.data.splits import balanced
from robust_nas.distillation.distiller import Distiller, LearnedSet, batch_loss
from robust_nas.errors import CheckpointError, ConfigError, DivergenceError, KernelError
from robust_nas.kernels.regression import centred_targets, solve
from robust_nas.nets.kernel_regression import KernelRegressionNetwork
from robust_nas.run_folder import Progress, Run, silent
from robust_nas.training.divergence import refuse_divergence
from robust_nas.training.validation import validate, validation_images

JOB = "distill"
REMEDY = "A smaller method.learning_rate or a larger method.reg may help"


@dataclass(frozen=True)
class DistillationOutcome:
    """The kept set with its kernel regression, its step, its accuracies on the validation split, and the seconds."""

    learned: LearnedSet
    network: KernelRegressionNetwork
    step: int  # 0: the real images of the start
    accuracies: tuple[float, float]  # clean and robust, 0..1
    start: tuple[float, float]  # the same of the real images
    seconds: float


def first_set(method: Distiller, images: Images, classes: int, seed: int) -> LearnedSet:
    """Return the real images that a distillation starts from, as many of each class, sorted by class.

    Raises `ConfigError` for more images than the method or the data allow.
    """
    count = method.support(classes)
    sizes = torch.bincount(images.labels.cpu(), minlength=classes)
    if int(sizes.min()) < method.per_class:
        raise ConfigError(
            f"method.per_class: got {method.per_class}, but class number {int(sizes.argmin())} has "
            f"{int(sizes.min())} training images; a smaller method.per_class, or more images (data.limit)"
        )
    if method.batch_size < classes:
        raise ConfigError(
            f"method.batch_size: got {method.batch_size}; at least {classes} are needed, an image of each class"
        )
    chosen = images.subset(balanced(images.labels, count, seed))
    chosen = chosen.subset(chosen.labels.argsort(stable=True))
    return LearnedSet(chosen.float().double(), centred_targets(chosen.labels, classes), chosen.labels)


def regression_of(
    method: Distiller, learned: LearnedSet, mean: tuple[float, ...], std: tuple[float, ...]
) -> KernelRegressionNetwork:
    """Return kernel regression on a set, in eval mode and frozen. Raises `KernelError` where it has no solution."""
    n, K = learned.targets.shape
    _, C, H, W = learned.images.shape
    network = KernelRegressionNetwork(n, (C, H, W), method.kernel, K, mean, std).to(learned.images.device)
    network.eval().requires_grad_(requires_grad=False)
    support = network.normalise(learned.images)
    return network.set(
        learned.images, solve(method.kernel.gram(support, support), learned.targets, method.reg)
    )


def distil(
    run: Run,
    images: Images,
    validation: Images,
    method: Distiller,
    threat_model: ThreatModel,
    augmentation: Augment,
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    *,
    classes: int,
    seed: int,
    checkpoint_seconds: float = 60.0,
    progress: Progress = silent,
) -> DistillationOutcome:
    """Learn a set from `images` (all on one device) and return the best one by `validation`.

    Continues from the run's checkpoint where there is one. Raises `DivergenceError` when the loss stops being finite or
    kernel regression has no solution; the checkpoint before it stays.
    """
    job = _Distillation(
        run, images, validation, method, threat_model, augmentation, normalisation, classes, seed
    )
    job.restore()
    return job.loop(checkpoint_seconds, progress)


class _Distillation:
    """One distillation: support images and targets, optimiser, position, and the best set so far."""

    def __init__(
        self,
        run: Run,
        images: Images,
        validation: Images,
        method: Distiller,
        threat_model: ThreatModel,
        augmentation: Augment,
        normalisation: tuple[tuple[float, ...], tuple[float, ...]],
        classes: int,
        seed: int,
    ) -> None:
        self.run, self.images, self.method, self.threat_model = run, images, method, threat_model
        self.augmentation, self.normalisation, self.seed = augmentation, normalisation, seed
        self.classes = classes
        first = first_set(method, images, classes, seed)
        self.labels = first.labels
        self.network = regression_of(method, first, *normalisation)
        normalise = self.network.normalise
        self.mean, self.std = normalise.mean.double(), normalise.std.double()
        self.support = normalise(first.images).requires_grad_()  # u
        self.targets = first.targets.requires_grad_(method.learn_labels)
        moved = [self.support, self.targets] if method.learn_labels else [self.support]
        self.optimiser = torch.optim.Adam(moved, method.learning_rate)
        self.draws = torch.Generator(images.pixels.device)
        self.validation = validation_images(validation, method.validation_images, seed)
        self.step = 0
        self.seconds = self.loss_sum = 0.0
        self.losses = 0  # that are summed, since the last validation
        self.start: tuple[float, float] | None = None
        self.best: dict[str, Any] = {}

    def loop(self, checkpoint_seconds: float, progress: Progress) -> DistillationOutcome:
        """Run to the last step and return the best set."""
        method = self.method
        began = saved = time.perf_counter()
        earlier = self.seconds
        if self.start is None:
            self.start = self._validate()
        note = ""
        while self.step < method.steps:
            if time.perf_counter() - saved >= checkpoint_seconds:
                self.seconds = earlier + time.perf_counter() - began
                self.save()
                saved = time.perf_counter()
            loss = self._one_step()
            self.step += 1
            if self.step % method.validate_every == 0 or self.step == method.steps:
                clean, robust = self._validate()
                note = f", validation {100 * clean:.1f} %, attacked {100 * robust:.1f} %"
            progress(JOB, self.step, method.steps, f"loss {loss:.4f}{note}")
        self.seconds = earlier + time.perf_counter() - began
        self.save()
        learned = LearnedSet(self.best["images"], self.best["targets"], self.labels)
        network = regression_of(method, learned, *self.normalisation)
        kept = self.best["clean"], self.best["robust"]
        return DistillationOutcome(learned, network, self.best["step"], kept, self.start, self.seconds)

    def present(self) -> LearnedSet:
        """Return the set as it is now, detached."""
        pixels = (self.support.detach() * self.std + self.mean).clamp(0, 1)
        return LearnedSet(pixels, self.targets.detach().clone(), self.labels)

    def _where(self) -> str:
        return f"{self.run.folder}: distillation, step {self.step + 1}"

    def _one_step(self) -> float:
        """Move the set by one batch and return the loss. Raises `DivergenceError`."""
        method, number = self.method, (self.seed * 1_000_003 + self.step) % 2**63
        self.draws.manual_seed(number)
        part = self.images.subset(balanced(self.images.labels, method.batch_size, number))
        x = augment(part.pixels, self.augmentation, self.draws).double()
        wanted = centred_targets(part.labels, self.classes)
        try:
            present = self.present()
            network = regression_of(method, present, *self.normalisation)
            with attack_mode(network):
                x = method.attacked(network, x, wanted, self.threat_model, self.draws)
            normalised = network.normalise(x)
            loss = batch_loss(method.kernel, self.support, self.targets, normalised, wanted, method.reg)
        except KernelError as error:
            raise DivergenceError(f"{self._where()}: {error}; the last good checkpoint stays") from None
        value = float(loss.detach())
        refuse_divergence({"the loss": value}, self._where(), REMEDY)
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.optimiser.step()
        self._project()
        self.loss_sum, self.losses = self.loss_sum + value, self.losses + 1
        return value

    @torch.no_grad()
    def _project(self) -> None:
        """Put the images back into 0..1. Raises `DivergenceError` where the step left no number."""
        if not bool(self.support.isfinite().all() & self.targets.isfinite().all()):
            raise DivergenceError(
                f"{self._where()}: diverged, a support image holds NaN or infinite values; the last good checkpoint "
                f"stays. {REMEDY}"
            )
        self.support.clamp_((0 - self.mean) / self.std, (1 - self.mean) / self.std)

    def _validate(self) -> tuple[float, float]:
        """Measure the set as it is now, keep it where it is the best, and log. Return clean and robust accuracy."""
        method, learned = self.method, self.present()
        try:
            network = regression_of(method, learned, *self.normalisation)
        except KernelError as error:
            raise DivergenceError(f"{self._where()}: {error}; the last good checkpoint stays") from None
        attack = method.validation_attack(self.threat_model)
        found = validate(network, self.validation, attack, seed=self.seed, where=self._where(), remedy=REMEDY)
        if not self.best or method.better(found, (self.best["clean"], self.best["robust"])):
            kept = {"images": learned.images, "targets": learned.targets}
            self.best = {"step": self.step, "clean": found[0], "robust": found[1], **kept}
        loss = self.loss_sum / self.losses if self.losses else None
        self.run.log({"step": self.step, "loss": loss, "clean": found[0], "robust": found[1]})
        self.loss_sum, self.losses = 0.0, 0
        return found

    def save(self) -> None:
        """Write the checkpoint."""
        self.run.save_checkpoint(
            {
                "job": JOB,
                "step": self.step,
                "seconds": self.seconds,
                "loss_sum": self.loss_sum,
                "losses": self.losses,
                "start": self.start,
                "best": self.best,
                "support": self.support.detach(),
                "targets": self.targets.detach(),
                "optimiser": self.optimiser.state_dict(),
            }
        )

    def restore(self) -> None:
        """Put the run's checkpoint back where there is one. Raises `CheckpointError`."""
        state = self.run.load_checkpoint()
        if state is None:
            return
        if state.get("job") != JOB:
            raise CheckpointError(
                f"{self.run.folder}: its checkpoint is of job {state.get('job')!r}, not of a distillation"
            )
        device = self.support.device
        with self.run.restoring(), torch.no_grad():
            self.support.copy_(state["support"])
            self.targets.copy_(state["targets"])
            restore_optimiser(self.optimiser, state["optimiser"])
            self.step, self.seconds = state["step"], state["seconds"]
            self.loss_sum, self.losses = state["loss_sum"], state["losses"]
            self.start = tuple(state["start"])
            self.best = {
                key: value.to(device) if isinstance(value, Tensor) else value
                for key, value in state["best"].items()
            }
