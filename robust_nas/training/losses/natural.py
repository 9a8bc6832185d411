"""Natural training: L = CE(f(x), y)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from robust_nas.training.options import LossValue, Natural


def loss(
    options: Natural, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator
) -> LossValue:
    """Cross-entropy on images `[B, C, H, W]` as they are."""
    logits = model(images)
    return LossValue(F.cross_entropy(logits.float(), labels), logits)
