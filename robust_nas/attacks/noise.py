"""Random noise as a control: the best of several points drawn on the sphere of radius eps, with no gradient.

Linf: every pixel moves by eps, up or down; L2: a uniform direction of length eps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robust_nas.attacks.balls import direction, project
from robust_nas.attacks.candidates import Best
from robust_nas.attacks.losses import margin
from robust_nas.attacks.options import Noise
from robust_nas.attacks.target import Target


def search(options: Noise, target: Target) -> Tensor:
    """The most harmful of the draws and of the image itself, `[B, C, H, W]`."""
    images = target.images
    best = Best(images, target.labels)
    clean = target.logits(images)
    best.offer(images, clean, margin(clean, target.labels))
    for _ in range(options.draws):
        noise = torch.empty(images.shape, dtype=images.dtype, device=images.device)
        noise.normal_(generator=target.generator)
        x = images + options.eps * direction(noise, options.norm)
        x = project(x, images, options.eps, options.norm)
        drawn = target.judged(x, target.logits(x, search=True), target.labels)
        best.offer(x, drawn, margin(drawn, target.labels))
    return target.no_worse(best.images, clean)
