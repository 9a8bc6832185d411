"""What the attacks that look for the smallest perturbation share: its size, and what a ball leaves of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks.attacked_model import AttackedModel


from robust_nas.attacks.attack import MinimalAttack
from robust_nas.attacks.best_iterate import BestIterate
from robust_nas.attacks.norms import Norm, length, project


def distance(x: Tensor, images: Tensor, norm: Norm) -> Tensor:
    """How far each example is from its image, `[B]`."""
    return length(x - images, norm)


def nearest(target: AttackedModel, clean: Tensor) -> BestIterate:
    """Keeps the nearest misclassified image of those offered with `-distance` as the loss, else the image itself."""
    best = BestIterate(target.images, target.labels)
    best.update(target.images, clean, clean.new_zeros(len(clean)))
    return best


def within_eps(options: MinimalAttack, target: AttackedModel, clean: Tensor, *found: Tensor) -> Tensor:
    """The nearest misclassified one of what was found, each projected onto the ball; else the image itself.

    `clean` are the logits of the images; what is already in the ball is not moved. Without eps, the nearest found.
    """
    images, eps, norm = target.images, options.eps, options.norm
    best = nearest(target, clean)
    for x in found:
        if eps is not None:
            outside = distance(x, images, norm) > eps
            x = torch.where(outside.view(-1, 1, 1, 1), project(x, images, eps, norm), x)
        best.update(x, target.logits(x), -distance(x, images, norm))
    return best.images
