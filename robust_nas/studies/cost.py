"""Estimate the cost of a study: arithmetic exactly, time by calibrating its cheapest and its dearest network.

Training is counted in forward-pass equivalents per image, with the parameters frozen inside the attack: an attack step
is a forward pass and an input gradient (2), a training step a forward pass and both gradients (3). So clean training is
3, adversarial training with K steps 2K + 3, TRADES 2K + 7 (inferred from published code; a backward pass counted as
two). Validation and evaluation are not in the training MACs; the estimate of time has them, by the passes that every
attack says of itself: a Square of 5,000 queries has 5,001 forward passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from robust_nas.attacks import Attack
from robust_nas.evaluation.options import EvaluationOptions
from robust_nas.timing import interleaved
from robust_nas.training import Training

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from robust_nas.data import Dataset
    from robust_nas.spaces import Architecture


def attack_passes(attack: Attack) -> int:
    """Return the forward and backward passes of one image, at most."""
    return attack.passes.total * attack.eot


def training_macs(macs: int, training: Training, images: int) -> int:
    """Return the multiply-adds of one training on `images` images."""
    return macs * training_passes(training, images)


def training_passes(training: Training, images: int) -> int:
    """Return the forward-pass equivalents of one training on `images` images, each counted for every image."""
    seen = images // training.batch_size * training.batch_size or images
    return round(training.passes * seen * training.epochs)


@dataclass(frozen=True)
class Rates:
    """Seconds of one image for the networks that were timed, by MACs: per pass of a training, and of an attack."""

    macs: tuple[int, ...]
    training: tuple[float, ...]
    attack: tuple[float, ...]

    def seconds(
        self, macs: int, training: Training, evaluation: EvaluationOptions, images: int, tested: int
    ) -> float:
        """Return a trial's time: training, validation, and at most every attack on every image."""
        passes = sum(
            attack_passes(step.attack) * min(step.images or tested, tested) for step in evaluation.steps
        )
        validated = len(training.validated_epochs) * (training.validation_images or images // 10)
        passes += validated * attack_passes(training.validation_attack)
        trained = training.epochs * images * training.passes
        return trained * self._at(macs, self.training) + passes * self._at(macs, self.attack)

    def _at(self, macs: int, values: Sequence[float]) -> float:
        """Return the value between the cheapest and the dearest network, linear in MACs."""
        (low, *_, high) = self.macs if len(self.macs) > 1 else (*self.macs, *self.macs)
        weight = (macs - low) / (high - low) if high > low else 0.0
        return max(values[0] + weight * (values[-1] - values[0]), 0.0)


def calibrate(
    architectures: Sequence[tuple[Architecture, Training, int]],
    attack: Attack,
    dataset: Dataset,
    device: torch.device,
) -> Rates:
    """Return the rates of networks given with their recipe and MACs, cheapest first; it takes seconds."""
    import torch

    from robust_nas.nets import build_network, channels_last

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    calls: dict[str, Callable[[], object]] = {}
    images: list[int] = []
    for number, (architecture, recipe, _) in enumerate(architectures):
        network = channels_last(
            build_network(architecture, input_shape=dataset.shape, classes=dataset.classes).to(device)
        )
        part = dataset.train.subset(torch.arange(min(recipe.batch_size, len(dataset.train)))).to(device)
        x = part.float().contiguous(memory_format=torch.channels_last)
        images.append(len(part))
        calls[f"train {number}"] = partial(_train_step, network, recipe, x, part.labels)
        calls[f"attack {number}"] = partial(_attack_batch, network, attack, x, part.labels)
    timings = interleaved(calls, rounds=3, clock=clock)
    numbers = range(len(architectures))
    return Rates(
        tuple(macs for *_, macs in architectures),
        tuple(
            timings[f"train {n}"].median / images[n] / recipe.loss.passes
            for n, (_, recipe, _) in enumerate(architectures)
        ),
        tuple(timings[f"attack {n}"].median / images[n] / attack_passes(attack) for n in numbers),
    )


def _train_step(network: nn.Module, recipe: Training, x: Tensor, labels: Tensor) -> None:
    """Take the loss and its gradients; what steps and hooks add is in the passes of the recipe."""
    import torch

    generator = torch.Generator(x.device).manual_seed(0)
    recipe.loss(network.train(), x, labels, generator).loss.backward()  # type: ignore[no-untyped-call]


def _attack_batch(network: nn.Module, attack: Attack, x: Tensor, labels: Tensor) -> None:
    import torch

    attack(network.eval(), x, labels, torch.Generator(x.device).manual_seed(0))
