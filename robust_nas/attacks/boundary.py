"""Boundary attack: a random walk along the boundary, towards the image (Brendel, Rauber and Bethge, 2018).

    eta      = delta ||x - x_t|| n / ||n||_2                 n normal, less its part along x - x_t: a step on the sphere
    s        = x + (x_t + eta - x) / sqrt(1 + delta^2)       back onto the sphere around x
    x'       = s + epsilon (x - s)                           then towards x; both clipped to the box 0..1
    x_{t+1}  = x' where it is misclassified, else x_t

delta (on the sphere) and epsilon (towards x) follow the local geometry of the boundary: of the points s, about half
should be misclassified, and of the x', about a quarter (paper, section 2.3).

    s:   above 50 %: both steps times 1.5;  below 20 %: both divided by it
    x':  above 25 %: epsilon times 1.5;     below 10 %: divided by it

Start values and the factor are from memory of the authors' code and from public ports of it, which ask for s in every
10th step and look at the last 100 s and 30 x'. Ours: every 5th step, and windows of 10 and 20, since budgets here are
of thousands of queries, not of hundreds of thousands; the walk starts on the boundary, on the straight line to the
first misclassified image. An image whose epsilon falls below 1e-6 has converged (1e-7 there: in float32 that moves
nothing).

N images that still take queries, C channels, H height, W width.
"""

from __future__ import annotations

from itertools import count as numbers
from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks.norms import Norm, l2
from robust_nas.attacks.oracle import Oracle, QueryAttack
from robust_nas.config import Count, Positive
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

FACTOR = 1.5  # by which a step grows or shrinks
CONVERGED = 1e-6  # epsilon
FIRST = 1e-3  # of the way, left when the first boundary point is found
EVERY = 5  # steps, in one of which s is asked for
# Name: window, share above which the step grows, share below which it shrinks.
ON_THE_SPHERE, TOWARDS = (10, 0.5, 0.2), (20, 0.25, 0.1)


class Boundary(QueryAttack):
    """A random walk along the boundary towards the image, by decisions alone (Brendel et al., 2018)."""

    norms: ClassVar[tuple[Norm, ...]] = ("l2",)
    name: Literal["boundary"] = "boundary"
    norm: Literal["l2"] = "l2"
    sphere_step: Positive = 0.01  # step along the sphere at the start, relative to the distance
    source_step: Positive = 0.01  # step towards the image at the start, relative to the distance
    starts: Count = 100  # random images that may be tried before one is misclassified

    def improve(self, oracle: Oracle) -> None:
        """Walk until the budget ends or the steps are too small to matter."""
        rows = oracle.start(self.starts)
        x = oracle.approach(oracle.found[rows], rows, FIRST)
        delta = torch.full_like(oracle.distance[rows], self.sphere_step)
        epsilon = torch.full_like(delta, self.source_step)
        sphere, towards = _Rate(delta, *ON_THE_SPHERE), _Rate(delta, *TOWARDS)
        for step in numbers(1):
            going = oracle.going(rows) & (epsilon > CONVERGED)
            if not going.all():
                rows, x, delta, epsilon = rows[going], x[going], delta[going], epsilon[going]
                sphere.keep(going)
                towards.keep(going)
            if len(rows) == 0:
                return
            s, new = propose(x, oracle.images[rows], oracle.normal(rows, 1)[:, 0], delta, epsilon)
            if step % EVERY:
                wrong = oracle.wrong(new, rows)
            else:
                both = oracle.ask(torch.stack([s, new], 1), rows).wrong
                wrong = both[:, 1]
                factor = sphere.seen(both[:, 0])
                delta, epsilon = delta * factor, epsilon * factor
            x = torch.where(wrong.view(-1, 1, 1, 1), new, x)
            epsilon = (epsilon * towards.seen(wrong)).clamp_max(0.5)


def propose(x: Tensor, images: Tensor, n: Tensor, delta: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
    """Return s and x', `[N, C, H, W]` each, for normal draws `n` of that shape; `delta` and `epsilon` are `[N]`."""
    delta, epsilon = delta.view(-1, 1, 1, 1), epsilon.view(-1, 1, 1, 1)
    tiny = torch.finfo(x.dtype).tiny
    away = x - images
    radius = l2(away).clamp_min(tiny)
    outward = away / radius
    n = n - (n * outward).sum((1, 2, 3), keepdim=True) * outward
    eta = delta * radius * n / l2(n).clamp_min(tiny)
    s = (images + (away + eta) / (1 + delta.square()).sqrt()).clamp(0, 1)
    return s, (s + epsilon * (images - s)).clamp(0, 1)


class _Rate:
    """How often each image's trials succeed, in windows; a step length follows."""

    def __init__(self, like: Tensor, window: int, high: float, low: float) -> None:
        self.window, self.high, self.low = window, high, low
        self.trials, self.successes = torch.zeros_like(like), torch.zeros_like(like)

    def seen(self, success: Tensor) -> Tensor:
        """Count one trial for each image `[N]`; return the factor of its step, other than 1 where a window is full."""
        self.trials, self.successes = self.trials + 1, self.successes + success
        full = self.trials >= self.window
        factor = torch.ones_like(self.trials)
        if full.any():
            share = self.successes / self.trials
            factor = factor.masked_fill(full & (share > self.high), FACTOR)
            factor = factor.masked_fill(full & (share < self.low), 1 / FACTOR)
            self.trials = self.trials.masked_fill(full, 0)
            self.successes = self.successes.masked_fill(full, 0)
        return factor

    def keep(self, going: Tensor) -> None:
        """Forget the other images."""
        self.trials, self.successes = self.trials[going], self.successes[going]
