"""Natural training: L = CE(f(x), y)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from robust_nas.training.options import LossValue, Natural


def to_float32(logits: Tensor) -> Tensor:
    """The logits in float32 at least: under autocast they come in bf16, in which no loss is taken."""
    return logits if logits.dtype == torch.float64 else logits.float()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of logits `[B, K]`, in float32 at least."""
    return F.cross_entropy(to_float32(logits), labels)


def loss(
    options: Natural, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator
) -> LossValue:
    """Cross-entropy on images `[B, C, H, W]` as they are."""
    logits = model(images)
    return LossValue(cross_entropy(logits, labels), logits)
