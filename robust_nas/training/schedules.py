"""Learning rates as functions of the position in training: nothing to store, nothing to restore."""

from __future__ import annotations

import math

from robust_nas.training.options import Cosine, Piecewise


def factor(schedule: Cosine | Piecewise, epoch: float, epochs: int) -> float:
    """What the learning rate is multiplied with at `epoch` (fractional) of `epochs`."""
    if isinstance(schedule, Piecewise):
        return schedule.factor ** sum(epoch >= milestone for milestone in schedule.milestones)
    if epoch < schedule.warmup_epochs:
        return (epoch + 1e-2) / (schedule.warmup_epochs + 1e-2)
    return cosine(epoch - schedule.warmup_epochs, epochs - schedule.warmup_epochs, 1.0, schedule.final)


def cosine(position: float, length: float, start: float, end: float) -> float:
    """Half a cosine from `start` at position 0 to `end` at `length` (Loshchilov and Hutter, 2017)."""
    share = min(1.0, position / length) if length > 0 else 1.0
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
