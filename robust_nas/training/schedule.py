"""The protocol of learning-rate schedules: functions of the position in training, with nothing to store or restore.

A new schedule is a subclass with its options and `factor_at`, in a file of its own in `schedules/`, and a line in
`SCHEDULES`.
"""

from __future__ import annotations

import math
from typing import ClassVar

from robust_nas.registry import Method


class Schedule(Method):
    """Base of all schedules. `needs_end`: whether the factor depends on the number of epochs."""

    needs_end: ClassVar[bool] = True

    def factor_at(self, epoch: float, epochs: int) -> float:
        """Return the factor of the learning rate at `epoch` (fractional) of `epochs`."""
        raise NotImplementedError(f"{type(self).__name__} has no formula")


def cosine(position: float, length: float, start: float, end: float) -> float:
    """Return half a cosine from `start` at position 0 to `end` at `length` (Loshchilov and Hutter, 2017)."""
    share = min(1.0, position / length) if length > 0 else 1.0
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
