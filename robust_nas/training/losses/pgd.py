"""Adversarial training: L = CE(f(x'), y), x' = argmax over the ball of CE (PGDAT et al., 2018).

The maximiser is approached by any attack of the gradient family: PGD, FGSM-RS, N-FGSM. Clean images are not trained on.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn

from robust_nas.training.losses.natural import cross_entropy
from robust_nas.training.options import PGDAT, LossValue


def loss(options: PGDAT, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> LossValue:
    """Cross-entropy on the attacked images `[B, C, H, W]`."""
    logits = model(options.attack(model, images, labels, generator))
    return LossValue(cross_entropy(logits, labels), logits)
