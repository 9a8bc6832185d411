"""The rule of APGD in L1: sparse steps whose sparsity adapts itself (Croce and Hein, "Mind the box", ICML 2021).

    x_{t+1} = P(x_t + eta h / ||h||_1)      h_i = sign(g_i) at the k largest |g_i|, else 0
    P       = the projection onto the L1 ball within the box (`l1_ball.py`)

    every M = max(int(0.04 N), 1) steps of a run of N steps, with s = ||x_best - x||_0 and s' that of the last time:
    k       = s / 1.5, rounded up
    eta     = r, and x_t = x_best, where s < 0.95 s'         the best point became sparser
              max(eta / 1.5, r / 10) elsewhere               r: the radius of the ball

No momentum. Three runs follow one another, in balls of 3, 2 and 1 eps with 0.3, 0.3 and 0.4 of the steps: each starts
from the best point of the one before, projected onto its ball, with k = s / 1.5 of that point and eta = r. That move
takes one of the steps here, so that the passes are those of any APGD. Only the points of the last ball are candidates
for the result. Attacks of fewer than five steps, or of six, where no run of a step or more would remain, take the last
ball alone. The first start is x + N(0, 1), projected. Constants are those of the authors' code.

B batch, D = C H W pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from robust_nas.attacks.norms import project
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

FACTORS, SHARE = (3, 2), 0.3  # of eps, of the balls before the last; of the steps, of each
CHECK, DENSER, SLOWER, SHORTEST = 0.04, 0.95, 1.5, 0.1


def balls(steps: int) -> tuple[tuple[int, int], ...]:
    """Return radius, in eps, and steps of each run."""
    share = math.ceil(SHARE * steps)
    last = steps - len(FACTORS) * share
    return (*((factor, share) for factor in FACTORS), (1, last)) if last > 0 else ((1, steps),)


class Sparse:
    """The rule, with its memory of one run: called with an iterate, its gradient and its loss."""

    def __init__(self, images: Tensor, eps: float, steps: int) -> None:
        self.images = images
        self.balls = [(factor * eps, count) for factor, count in balls(steps)]
        self._enter()

    def _enter(self) -> None:
        """The next ball, of which nothing is known yet."""
        self.radius, self.left = self.balls.pop(0)
        self.interval = max(int(CHECK * self.left), 1)
        self.since = 0
        self.best_x: Tensor | None = None

    def __call__(self, x: Tensor, gradient: Tensor, loss: Tensor) -> Tensor:
        """The next iterate `[B, C, H, W]`."""
        x, gradient = self._judge(x, gradient, loss.nan_to_num(nan=-torch.inf))
        self.left -= 1
        if self.left == 0 and self.balls and self.best_x is not None:
            best = self.best_x
            self._enter()
            return project(best, self.images, self.radius, "l1")
        size = gradient.flatten(1).abs()
        least = size.sort(1, descending=True).values.gather(1, self.k - 1)  # [B, 1]
        h = gradient.flatten(1).sign() * (size >= least)
        h = self.size * h / h.abs().sum(1, keepdim=True).clamp_min(1)
        return project(x + h.view_as(x), self.images, self.radius, "l1")

    def _judge(self, x: Tensor, gradient: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Takes note of an iterate; the point to go on from and its gradient."""
        if self.best_x is None:
            self.best_x, self.best_gradient, self.best = x, gradient, loss
            self.moved = self._moved(x)
            self.k = self._k()
            self.size = torch.full_like(self.moved, self.radius)
            return x, gradient
        better = loss > self.best
        self.best_x = torch.where(_wide(better), x, self.best_x)
        self.best_gradient = torch.where(_wide(better), gradient, self.best_gradient)
        self.best = torch.where(better, loss, self.best)
        self.since += 1
        if self.since < self.interval:
            return x, gradient
        self.since, before = 0, self.moved
        self.moved = self._moved(self.best_x)
        self.k = self._k()
        sparser = self.moved < DENSER * before
        shorter = (self.size / SLOWER).clamp_min(SHORTEST * self.radius)
        self.size = torch.where(sparser, torch.full_like(shorter, self.radius), shorter)
        wide = sparser.view(-1, 1, 1, 1)
        return torch.where(wide, self.best_x, x), torch.where(wide, self.best_gradient, gradient)

    def _moved(self, best_x: Tensor) -> Tensor:
        """How many pixels of the best point are not the image's, `[B, 1]`."""
        return (best_x != self.images).flatten(1).sum(1, keepdim=True).to(self.images.dtype)

    def _k(self) -> Tensor:
        """How many pixels the next steps move, int64 `[B, 1]`."""
        return (self.moved / SLOWER).ceil().long().clamp_min(1)


def _wide(per_example: Tensor) -> Tensor:
    return per_example.view(-1, 1, 1, 1)
