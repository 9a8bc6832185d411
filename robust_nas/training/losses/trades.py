"""TRADES: L = CE(f(x), y) + beta KL(p(x) || p(x')), x' = argmax over the ball of that KL (Zhang et al., 2019).

The KL is summed over classes and averaged over the batch. Clean and adversarial images go through the network one
after the other, each with its own batch statistics, as in the official code.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from robust_nas.training.losses.natural import cross_entropy, to_float32
from robust_nas.training.options import LossValue, Trades


def loss(
    options: Trades, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator
) -> LossValue:
    """The loss on images `[B, C, H, W]`; the logits returned are the adversarial ones."""
    attacked = options.attack(model, images, labels, generator)
    clean, adversarial = model(images), model(attacked)
    log_p, log_q = (to_float32(logits).log_softmax(1) for logits in (clean, adversarial))
    divergence = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return LossValue(cross_entropy(clean, labels) + options.beta * divergence, adversarial)
