"""Which images a model gets right, as they are and under an attack: one rule for everything that counts accuracy.

    clean[i]   argmax f(x_i) = y_i, with finite logits
    robust[i]  clean[i], and argmax f(x'_i) = y_i with finite logits,   x' = attack(f, x, y)

Answers are float32, in eval mode, by the model's own inference rule. B batch, N images, K classes, D draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from robust_nas.errors import AttackError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from robust_nas.attacks import Attack, Predictor


class LabelledImages(Protocol):
    """What is evaluated on: `robust_nas.data` gives such objects."""

    @property
    def pixels(self) -> Tensor:
        """The images, uint8, or float in 0..1, `[N, C, H, W]`."""

    @property
    def labels(self) -> Tensor:
        """Their classes, int64 `[N]`."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The answers on images. D draws of the answer, one for a deterministic rule."""

    right: Tensor  # [B] bool, in most of the draws; for an abstaining rule, right or rejected
    draws: Tensor  # [D, B] bool, in each draw
    finite: Tensor  # [B] bool, whether the logits of every draw are
    logits: Tensor  # [B, K] float32 of the first draw (K + 1 where it abstains)
    forwards: int  # forward passes of one image

    @property
    def rejected(self) -> Tensor:
        """Return `[B]` bool of the first draw; meaningful for an abstaining rule alone."""
        return self.logits.argmax(1) == self.logits.shape[1] - 1

    @property
    def not_finite(self) -> int:
        """Return the number of images with logits that are NaN or infinite."""
        return int((~self.finite).sum())

    @staticmethod
    def joined(parts: list[Judged]) -> Judged:
        """Return the answers of several batches as one, on the CPU."""
        return Judged(
            right=torch.cat([part.right for part in parts]).cpu(),
            draws=torch.cat([part.draws for part in parts], dim=1).cpu(),
            finite=torch.cat([part.finite for part in parts]).cpu(),
            logits=torch.cat([part.logits for part in parts]).cpu(),
            forwards=sum(part.forwards for part in parts),
        )


def judge(predictor: Predictor, images: Tensor, labels: Tensor, *, draws: int = 1, seed: int = 0) -> Judged:
    """Return which examples the inference rule gets right, in eval mode and float32; not-finite logits are wrong.

    A random rule is asked for `draws` fresh answers; `seed` is of their randomness alone, and must not be that of an
    attack. Raises `AttackError` where the model gives no logits, or too few for the labels.
    """
    from robust_nas.attacks import attack_mode
    from robust_nas.attacks.checks import check_logits
    from robust_nas.attacks.engine import seeded_globally

    draws = draws if predictor.random else 1
    found = []
    with (
        torch.no_grad(),
        attack_mode(predictor),
        torch.autocast(images.device.type, enabled=False),
        seeded_globally(seed, images.device),
    ):
        for _ in range(draws):
            last_label = int(labels.max())
            logits = check_logits(predictor(images), images, last_label).float()
            if predictor.abstains and last_label == logits.shape[1] - 1:
                raise AttackError(f"label {last_label} is what the model calls a rejection; it is no class")
            guess = logits.argmax(1)
            right = guess == labels
            if predictor.abstains:
                right |= guess == logits.shape[1] - 1
            finite = logits.isfinite().all(1)
            found.append((right & finite, finite, logits))
    each = torch.stack([right for right, _, _ in found])
    return Judged(
        right=each.float().mean(0) > 0.5,
        draws=each,
        finite=torch.stack([finite for _, finite, _ in found]).all(0),
        logits=found[0][2],
        forwards=len(images) * draws * (predictor.samples or 1),
    )


@dataclass(frozen=True, kw_only=True)
class Correctness:
    """Per image whether the answer is right, on the images' device."""

    clean: Tensor  # [N] bool
    robust: Tensor  # [N] bool, also under the attack
    finite: Tensor  # [N] bool, whether the clean logits are

    @property
    def accuracies(self) -> tuple[float, float]:
        """Return clean and robust accuracy, 0..1."""
        clean, robust = (int(right.sum()) / len(right) for right in (self.clean, self.robust))
        return clean, robust


def correctness(
    model: nn.Module,
    images: LabelledImages,
    attack: Attack,
    generator: Generator,
    *,
    attacked: nn.Module | None = None,
    batch_size: int = 256,
) -> Correctness:
    """Return which images a model gets right, as they are and under one attack.

    Model, images and generator are on one device; batches are taken in the images' order and in channels-last memory
    format, and all draws of the attack come from the one generator. `attacked` is what the attack works on where it is
    not the model itself, such as a dense form of compressed layers; the model judges. The model is left as it was.
    """
    from robust_nas.attacks import Predictor

    predictor = Predictor.of(model)
    clean, robust, finite = [], [], []
    for indices in torch.split(torch.arange(len(images.labels)), batch_size):
        x, labels = batch_of(images, indices)
        x = x.contiguous(memory_format=torch.channels_last)
        adversarial = attack(model if attacked is None else attacked, x, labels, generator)
        before, after = (judge(predictor, each, labels) for each in (x, adversarial))
        clean.append(before.right)
        robust.append(before.right & after.right)
        finite.append(before.logits.isfinite().all(1))
    return Correctness(clean=torch.cat(clean), robust=torch.cat(robust), finite=torch.cat(finite))


def chance_of(labels: Tensor, classes: int) -> float:
    """Return what a constant answer gets right: the share of the largest class in `labels` [N], or 1/K if more."""
    return max(1 / classes, float(labels.bincount().max()) / len(labels))


def batch_of(images: LabelledImages, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the images at `indices` as float32 in 0..1 `[B, C, H, W]`, and their labels `[B]`."""
    indices = indices.to(images.labels.device)
    return as_float(images.pixels[indices]), images.labels[indices]


def as_float(pixels: Tensor) -> Tensor:
    """Return float32 in 0..1 of uint8 pixels, or of float ones."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
