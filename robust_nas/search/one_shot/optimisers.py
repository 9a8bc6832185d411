"""The optimisers of a one-shot search: SGD for the weights, Adam for the architecture parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from robust_nas.config import Fraction01, NonNegative, Options, Positive
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import nn


class WeightOptimiser(Options):
    """SGD with momentum for the supernet's weights, cosine from `learning_rate` to `min_learning_rate`."""

    learning_rate: Positive = 0.025
    min_learning_rate: NonNegative = 0.001
    momentum: Fraction01 = 0.9
    weight_decay: NonNegative = 3e-4
    clip_norm: Positive = 5.0

    def build(self, weights: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of these weights."""
        return torch.optim.SGD(
            weights, self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )


class AlphaOptimiser(Options):
    """Adam for the architecture parameters."""

    learning_rate: Positive = 3e-4
    betas: tuple[Fraction01, Fraction01] = (0.5, 0.999)
    weight_decay: NonNegative = 1e-3

    def build(self, alphas: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of these parameters."""
        return torch.optim.Adam(alphas, self.learning_rate, betas=self.betas, weight_decay=self.weight_decay)
