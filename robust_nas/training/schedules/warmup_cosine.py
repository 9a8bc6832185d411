"""Linear warm-up over w epochs, then half a cosine to `final` (Loshchilov and Hutter, 2017).

factor(e) = (e + 0.01) / (w + 0.01)                                     e < w
          = final + (1 - final) (1 + cos(pi (e - w) / (E - w))) / 2     else, of E epochs
"""

from __future__ import annotations

from typing import Literal

from robust_nas.config import NonNegative
from robust_nas.training.schedule import Schedule, cosine


class Cosine(Schedule):
    """Linear warm-up, then half a cosine to `final` times the learning rate."""

    name: Literal["cosine"] = "cosine"
    warmup_epochs: NonNegative = 0.0  # epochs of linear rise
    final: NonNegative = 0.0  # learning rate at the end, relative to its peak

    def factor_at(self, epoch: float, epochs: int) -> float:
        """Return the factor of the learning rate at `epoch` (fractional) of `epochs`."""
        if epoch < self.warmup_epochs:
            return (epoch + 1e-2) / (self.warmup_epochs + 1e-2)
        return cosine(epoch - self.warmup_epochs, epochs - self.warmup_epochs, 1.0, self.final)
