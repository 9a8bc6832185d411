"""Batches that are common to all candidates: images, augmentation and noise of step t follow from the seed and t alone.

    i_t, augmentation_t, noise_t = draws of a generator with seed (seed, t),      t = 1 .. T
    factor_t = min(1, t / (w T)) min(1, (1 - t / T) / (1 - w))                  warm-up of a share w, then linear decay

Candidates that meet the same draws differ by their architecture alone: the difference of two losses loses the variance
of the batches (common random numbers). A step can be repeated without the ones before it.

Images are as small as `side`: means over squares of f x f pixels, f = floor(min(H, W) / side). B batch, C channels,
H height, W width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, NamedTuple, Protocol

from pydantic import Field

from robust_nas.config import Count, Fraction01, NonNegative, Options, Positive
from robust_nas.data.options import Augment
from robust_nas.errors import ConfigError, DivergenceError
from robust_nas.lazy import F, torch
from robust_nas.spaces import CellSpace, Size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Generator, Tensor, nn
    from torch.optim import Optimizer

    from robust_nas.data import Images
    from robust_nas.training import Loss

READ_EVERY = 50  # steps after which losses are read back from the device


class Material(Protocol):
    """What a context has that candidates are trained with."""

    @property
    def images(self) -> Images:
        """Return the images that may be seen."""

    @property
    def classes(self) -> int:
        """Return the number of classes."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Return the mean of every colour, which networks subtract."""

    @property
    def std(self) -> tuple[float, ...]:
        """Return the deviation of every colour, which networks divide by."""

    @property
    def seed(self) -> int:
        """Return the seed of weights and draws."""

    @property
    def augmentation(self) -> Augment:
        """Return the augmentation of images at their full size."""


class CommonBatch(NamedTuple):
    """The batch of one step, and the generator of its noise."""

    images: Tensor  # [B, C, H, W] in 0..1
    labels: Tensor  # [B]
    generator: Generator


class BatchTraining(Options):
    """How weights are trained on common batches: size of network and images, batches, SGD."""

    cells_a_stage: Count = 1  # apart from reduction cells
    channels: Count = 16
    side: Count | None = 16  # of the images, where theirs is a multiple or more; None: as they are
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Positive = 0.1
    momentum: Fraction01 = 0.9
    weight_decay: NonNegative = 5e-4
    clip_norm: Positive = 5.0
    warmup: Fraction01 = 0.2  # share of the steps in which learning rate and eps rise from 0

    def size(self, space: CellSpace) -> Size:
        """Return the smallest depth that gives every stage `cells_a_stage` cells, and the width."""
        cells = 1
        while not self._is_deep(space, Size(cells=cells, channels=self.channels)):
            cells += 1
        return Size(cells=cells, channels=self.channels)

    def _is_deep(self, space: CellSpace, size: Size) -> bool:
        if size.cells < len(space.layout.stages):
            return False
        stages = [place.stage for place in space.places(size) if not place.reduction]
        return all(stages.count(number) >= self.cells_a_stage for number in range(len(space.layout.stages)))

    def batches(self, material: Material, images: Images) -> CommonBatches:
        """Return the batches of these images, shrunk already. Raises `ConfigError` where there are too few images."""
        return CommonBatches(images, self.batch_size, self._augmentation(material), material.seed)

    def shrunk(self, images: Images) -> Images:
        """Return the images with means over squares of pixels, rounded, at about `side` pixels."""
        from robust_nas.data import Images as Made

        factor = self._factor(images)
        if factor == 1:
            return images
        means = torch.cat([F.avg_pool2d(part.float(), factor) for part in images.pixels.split(4096)])
        return Made(means.round().to(torch.uint8), images.labels)

    def _factor(self, images: Images) -> int:
        smallest = min(images.pixels.shape[2:])
        return 1 if self.side is None else max(1, smallest // self.side)

    def _augmentation(self, material: Material) -> Augment:
        """Return the context's augmentation with lengths in pixels of the smaller images, at least one."""
        factor, given = self._factor(material.images), material.augmentation
        scaled = {key: -(-getattr(given, key) // factor) for key in ("crop", "cutout")}
        return given.model_copy(update=scaled)

    def optimiser(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Return SGD over parameters."""
        return torch.optim.SGD(
            parameters,
            self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            foreach=True,
        )

    def move(self, optimiser: Optimizer, parameters: list[nn.Parameter], factor: float) -> None:
        """Clip the gradients together, move the weights by the learning rate times `factor`, and clear the gradients."""
        torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm, foreach=True)
        for group in optimiser.param_groups:
            group["lr"] = self.learning_rate * factor
        optimiser.step()
        optimiser.zero_grad()

    def rising(self, step: int, steps: int) -> float:
        """Return the share of eps, 0..1, at step 1..`steps`."""
        return min(1.0, step / (self.warmup * steps)) if self.warmup else 1.0

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the learning rate at step 1..`steps`; the last one is above 0."""
        falling = (1 - (step - 1) / steps) / (1 - self.warmup) if self.warmup < 1 else 1.0
        return self.rising(step, steps) * min(1.0, falling)

    def present_loss(self, loss: Loss, step: int, steps: int) -> Loss:
        """Return the loss at a step: its attack's eps rises with the warm-up."""
        attack, share = loss.inner_attack, self.rising(step, steps)
        return loss if attack is None or share == 1 else loss.with_attack(attack.scaled(share))


class CommonBatches:
    """The batch of every step, by its number."""

    def __init__(self, images: Images, batch_size: int, augmentation: Augment, seed: int) -> None:
        if len(images) < batch_size:
            raise ConfigError(f"batch_size: got {batch_size}; there are {len(images)} images to train on")
        self.images, self.batch_size = images, batch_size
        self.augmentation, self.seed = augmentation, seed

    def __call__(self, step: int) -> CommonBatch:
        """Return the batch of a step: images with replacement, augmented, and the generator behind these draws."""
        from robust_nas.data import augment

        device = self.images.pixels.device
        generator = torch.Generator(device).manual_seed((self.seed * 1_000_003 + step) % 2**63)
        chosen = torch.randint(len(self.images), (self.batch_size,), generator=generator, device=device)
        x = augment(self.images.pixels[chosen], self.augmentation, generator)
        x = x.contiguous(memory_format=torch.channels_last)
        return CommonBatch(x, self.images.labels[chosen], generator)


class LossCurve:
    """The losses of a training, read back from the device now and then."""

    def __init__(self, where: str) -> None:
        self.where, self.values = where, list[float]()
        self._waiting: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """Take the loss of a step. Raises `DivergenceError` where one of the last ones was not sound."""
        self._waiting.append(loss.detach())
        if len(self._waiting) == READ_EVERY:
            self.read()

    def read(self) -> list[float]:
        """Return all losses so far. Raises `DivergenceError`."""
        from robust_nas.training.divergence import refuse_divergence, remedy_of

        if self._waiting:
            self.values += torch.stack(self._waiting).tolist()
            self._waiting.clear()
        bad = next((value for value in self.values if not math.isfinite(value)), None)
        largest = bad if bad is not None else max(self.values, default=0.0)
        refuse_divergence({"the loss": largest}, self.where, remedy_of("learning_rate"))
        return self.values


__all__ = ["BatchTraining", "CommonBatch", "CommonBatches", "DivergenceError", "LossCurve", "Material"]
