"""Batches that are common to all candidates: images, augmentation and noise of step t follow from the seed and t alone.

    i_t, augmentation_t, noise_t = draws of a generator with seed (seed, t),      t = 1 .. T
    factor_t = min(1, t / (w T), (T - t + 1) / ((1 - w) T))                    warm-up of a share w, then linear decay

Candidates that meet the same draws differ by their architecture alone: the difference of two losses loses the variance
of the batches (common random numbers). A step can be repeated without the ones before it.

B batch, C channels, H height, W width.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field

from robust_nas.config import Count, Fraction01, NonNegative, Options, Positive
from robust_nas.data.options import Augment
from robust_nas.errors import ConfigError
from robust_nas.lazy import torch
from robust_nas.search.ranking.method import RankingContext
from robust_nas.spaces import CellArchitecture, Size

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn
    from torch.optim import Optimizer

    from robust_nas.data import Images
    from robust_nas.training import Loss

READ_EVERY = 50  # steps after which losses are read back from the device


class CommonBatch(NamedTuple):
    """The batch of one step, and the generator of its noise."""

    images: Tensor  # [B, C, H, W] in 0..1
    labels: Tensor  # [B]
    generator: Generator


class CommonBatches:
    """The batch of every step, by its number."""

    def __init__(self, images: Images, batch_size: int, augmentation: Augment, seed: int) -> None:
        if len(images) < batch_size:
            raise ConfigError(f"batch_size: got {batch_size}; there are {len(images)} images to train on")
        self.images, self.batch_size = images, batch_size
        self.augmentation, self.seed = augmentation, seed

    def __call__(self, step: int) -> CommonBatch:
        """Return the batch of a step: images drawn with replacement, augmented, and the generator of these draws."""
        from robust_nas.data import augment

        device = self.images.pixels.device
        generator = torch.Generator(device).manual_seed((self.seed * 1_000_003 + step) % 2**63)
        chosen = torch.randint(len(self.images), (self.batch_size,), generator=generator, device=device)
        x = augment(self.images.pixels[chosen], self.augmentation, generator)
        x = x.contiguous(memory_format=torch.channels_last)
        return CommonBatch(x, self.images.labels[chosen], generator)


class BatchTraining(Options):
    """How weights are trained on common batches: size of network and images, batches, SGD."""

    side: Count = 16  # pixels to which images are reduced, by means of k x k pixels, about
    channels: Count = 16  # width at which candidates are built
    cells_per_stage: Count = 1  # apart from reduction cells
    batch_size: Annotated[int, Field(ge=2)] = 64  # images of a step
    learning_rate: Positive = 0.1  # of SGD, after its rise
    momentum: Fraction01 = 0.9  # of SGD
    weight_decay: NonNegative = 5e-4  # L2 penalty of the weights
    clip_norm: Positive = 5.0  # largest norm of a gradient
    warmup: Annotated[Fraction01, Field(lt=1)] = 0.2  # share of the steps in which learning rate and eps rise

    def depth(self, architecture: CellArchitecture) -> int:
        """Return the smallest number of cells that gives every stage `cells_per_stage` without reduction cells."""
        layout, concat = architecture.layout, {cell.kind: len(cell.concat) for cell in architecture.genotype}
        for cells in count(self.cells_per_stage * len(layout.stages)):
            places = layout.places(cells, self.channels, concat)
            plain = [place.stage for place in places if not place.reduction]
            if min(plain.count(stage) for stage in range(len(layout.stages))) >= self.cells_per_stage:
                return cells
        raise AssertionError("unreachable: `places` refuses too many cells")

    def size(self, architecture: CellArchitecture) -> Size:
        """Return depth and width at which candidates like this one are trained."""
        return Size(cells=self.depth(architecture), channels=self.channels)

    def sized(self, candidate: CellArchitecture) -> CellArchitecture:
        """Return a candidate at the size of the training."""
        return candidate.resized(self.depth(candidate), self.channels)

    def batches(self, images: Images, context: RankingContext) -> CommonBatches:
        """Return the batches of images that were reduced to `side`.

        Pixels of a crop or cut-out shrink with the images, rounded up. Raises `ConfigError` for too few images.
        """
        k = max(1, min(context.images.pixels.shape[2:]) // self.side)
        given = context.augmentation
        shrunk = given.model_copy(update={key: -(-getattr(given, key) // k) for key in ("crop", "cutout")})
        return CommonBatches(images, self.batch_size, shrunk, context.seed)

    def optimiser(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return SGD over parameters; those without a gradient are not moved."""
        return torch.optim.SGD(
            parameters,
            self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            foreach=True,
        )

    def move(self, optimiser: Optimizer, factor: float) -> None:
        """Clip all gradients together, move the weights by the learning rate times `factor`, drop the gradients."""
        (group,) = optimiser.param_groups
        group["lr"] = self.learning_rate * factor
        torch.nn.utils.clip_grad_norm_(group["params"], self.clip_norm, foreach=True)
        optimiser.step()
        optimiser.zero_grad()

    def risen(self, step: int, steps: int) -> float:
        """Return the share of eps, 0..1, at step 1..`steps`."""
        return min(1.0, step / (self.warmup * steps)) if self.warmup else 1.0

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the learning rate at step 1..`steps`."""
        return min(self.risen(step, steps), (steps - step + 1) / ((1 - self.warmup) * steps))

    def loss_at(self, loss: Loss, step: int, steps: int) -> Loss:
        """Return the loss of a step: the eps of its attack rises with the warm-up."""
        attack, share = loss.inner_attack, self.risen(step, steps)
        return loss if attack is None or share == 1 else loss.with_attack(attack.scaled(share))


class LossCurve:
    """The losses of a training, read back from the device now and then."""

    def __init__(self, where: str, values: list[float] | None = None) -> None:
        self.where, self.values = where, [] if values is None else values
        self._waiting: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """Take the loss of a step. Raises `DivergenceError` where one of the last steps was not sound."""
        self._waiting.append(loss.detach())
        if len(self._waiting) == READ_EVERY:
            self.read()

    def read(self) -> list[float]:
        """Return all losses so far. Raises `DivergenceError`."""
        from robust_nas.training.divergence import refuse_divergence, remedy_of

        if self._waiting:
            for value in torch.stack(self._waiting).tolist():
                refuse_divergence({"the loss": value}, self.where, remedy_of("learning_rate"))
                self.values.append(value)
            self._waiting.clear()
        return self.values
