"""Where an evaluation stands: its images, checked and in order, and what the attacks have left right so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from robust_nas.attacks.predictor import Predictor
from robust_nas.errors import AttackError
from robust_nas.evaluation.options import EvaluationOptions, Step
from robust_nas.evaluation.report import Row
from robust_nas.evaluation.traces import TraceRecord


class LabelledImages(Protocol):
    """What is evaluated on: `robust_nas.data` gives such objects."""

    @property
    def pixels(self) -> Tensor:
        """The images, uint8, or float in 0..1, `[N, C, H, W]`."""

    @property
    def labels(self) -> Tensor:
        """Their classes, int64 `[N]`."""


@dataclass
class Progressed:
    """Where an evaluation stands after its attacks; what the findings start from."""

    predictor: Predictor
    options: EvaluationOptions
    pixels: Tensor  # [N, C, H, W] in the order of the evaluation, on the CPU
    labels: Tensor  # [N]
    seed: int
    device: torch.device
    classes: int
    clean_logits: Tensor  # [N, K]
    clean_right: Tensor  # [N]
    right: Tensor  # [N] after all attacks, each on its share
    common: int
    traces: list[TraceRecord] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    flags: dict[str, None] = field(default_factory=dict)
    largest: float = 0.0  # perturbation seen
    not_finite: int = 0  # images with logits that are not
    before: str = ""  # fingerprint of the predictor
    untouched: bool = True

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of the list that are meant for so many classes."""
        return tuple(step for step in self.options.steps if step.suits(self.classes))

    @property
    def chance(self) -> float:
        """What a constant answer gets right: the share of the largest class, or 1/K where that is more."""
        return max(1 / self.classes, float(self.labels.bincount().max()) / len(self.labels))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images float32 in 0..1 and labels, on the device."""
        return as_float(self.pixels[indices]).to(self.device), self.labels[indices].to(self.device)


def check_images(images: LabelledImages) -> tuple[Tensor, Tensor]:
    """Pixels and labels on the CPU. Raises `AttackError` for what cannot be evaluated on."""
    pixels, labels = images.pixels, images.labels
    if not (pixels.dtype == torch.uint8 or pixels.is_floating_point()) or pixels.dim() != 4:
        raise AttackError(
            f"pixels are {pixels.dtype} of shape {tuple(pixels.shape)}; "
            "uint8, or float in 0..1, [images, channels, height, width] is needed"
        )
    if labels.dtype != torch.int64 or labels.dim() != 1 or len(labels) != len(pixels):
        raise AttackError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)} for {len(pixels)} images; "
            "int64 [images] is needed"
        )
    if len(labels) == 0 or pixels.numel() == 0:
        raise AttackError("no images to evaluate on")
    if pixels.is_floating_point():
        low, high = (float(limit) for limit in pixels.aminmax())
        if not (low >= 0 and high <= 1):  # written so that NaN fails it too
            raise AttackError(f"images reach from {low:.6g} to {high:.6g}; pixels lie in 0..1, without NaN")
    if int(labels.min()) < 0:
        raise AttackError(f"label {int(labels.min())}; classes are counted from 0")
    return pixels.cpu(), labels.cpu()


def as_float(pixels: Tensor) -> Tensor:
    """float32 in 0..1 of uint8 pixels, or of float ones."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
