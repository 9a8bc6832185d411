"""The point of least norm on the segment between two gradients: MGDA's closed form for two tasks.

    gamma* = clip( <u2 - u1, u2> / ||u2 - u1||^2, 0, 1 ),   g = gamma* u1 + (1 - gamma*) u2

Sener and Koltun, 2018; stage 2 of DSARA. For equal gradients every gamma gives the same point, and 1/2 is returned.

The point lies near the shorter gradient, whatever its loss is worth. Two normalisers take that scale away:

    unit   u / ||u||     for two gradients gamma* is 1/2: g halves the angle between them
    loss   u / L         the gradient of log L

Sener and Koltun's code has both, as `l2` and `loss` (from memory): it takes gamma* from normalised gradients and then
weighs the losses as they are. Here g is the min-norm point of the normalised gradients, which descends both losses.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def normalised(gradient: Tensor, loss: Tensor, by: Literal["none", "unit", "loss"]) -> Tensor:
    """Return a flat gradient divided by its length, by its loss (a scalar), or as it is."""
    if by == "none":
        return gradient
    scale = gradient.norm() if by == "unit" else loss
    return gradient / scale.clamp_min(torch.finfo(gradient.dtype).tiny)


def min_norm(u1: Tensor, u2: Tensor) -> tuple[Tensor, Tensor]:
    """gamma* (a scalar in 0..1) and the combined gradient, for two flat gradients of one shape."""
    difference = u2 - u1
    squared = difference.dot(difference)
    floor = torch.finfo(u1.dtype).tiny
    gamma = (difference.dot(u2) / squared.clamp_min(floor)).clamp(0, 1)
    gamma = torch.where(squared > floor, gamma, torch.full_like(gamma, 0.5))
    return gamma, torch.lerp(u2, u1, gamma)
