"""Steps at milestones: factor(e) = g^n, n the number of milestones that are at most e."""

from __future__ import annotations

from typing import ClassVar, Literal

from robust_nas.config import Count, Positive
from robust_nas.training.schedule import Schedule


class Piecewise(Schedule):
    """The learning rate times `factor` from each of the milestone epochs on."""

    needs_end: ClassVar[bool] = False

    name: Literal["piecewise"] = "piecewise"
    milestones: tuple[Count, ...] = (100, 150)  # epochs from which the rate is lower
    factor: Positive = 0.1  # of the learning rate at a milestone

    def factor_at(self, epoch: float, epochs: int) -> float:
        """Return the factor of the learning rate at `epoch` (fractional) of `epochs`."""
        return self.factor ** sum(epoch >= milestone for milestone in self.milestones)
