"""Descend g(theta), the distance of the boundary along a direction: the loop that OPT and Sign-OPT share.

    g(theta)   = min lambda with P(x + lambda theta) misclassified        ||theta|| = 1, P: onto the box 0..1
    theta'     = (theta - alpha g^) / ||..||                              g^: an estimate of the gradient of g

alpha is doubled while g falls; where the first step is no descent, it is quartered until one is (15 times at most). An
alpha below `STUCK` starts again at 1 with a tenth of beta, the length of the estimate's steps, until beta is as small
as the images' type resolves (their code: until 1e-8, and then ends). g is found by halving between a point that is
misclassified and one that is not, up to a tolerance of beta / 500. (Cheng et al., 2019 and 2020; constants from memory
of their code.)

Ours: P; a bracket that doubles its width, instead of widening by 1 % again and again; a step
that is not misclassified at the best distance takes one query alone, since it is no descent.

N images that still take queries, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_nas.attacks.minimal import distance
from robust_nas.attacks.norms import l2
from robust_nas.attacks.oracle import Oracle, QueryAttack
from robust_nas.config import Count, Positive
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

TRIES = 15  # of the line search, each way
STUCK = 1e-4  # alpha, below which beta shrinks
LEAST_BETA = 1e-8  # or `SETTLED` roundings, where that is more
SETTLED = 500  # beta over the tolerance of g
FIRST = 1e-3  # tolerance of the first g, relative
WIDENINGS = 12  # of a bracket that starts with 1 %
ROUNDINGS = 4  # least tolerance, in roundings of g


class RaySearch(QueryAttack):
    """Base of OPT and Sign-OPT: a subclass estimates the gradient of g."""

    alpha: Positive = 0.2  # first step of a descent
    beta: Positive = 0.001  # step of the estimate
    starts: Count = 100  # random images that may be tried before one is misclassified
    directions: Count = 100  # further random directions that are tried at the best distance

    def estimate(self, rays: Rays, theta: Tensor, g: Tensor, rows: Tensor, beta: Tensor) -> Tensor:
        """Return an estimate of the gradient of g, up to its length, `[N, C, H, W]`."""
        raise NotImplementedError(f"{type(self).__name__} estimates no gradient")

    def step(self, theta: Tensor, gradient: Tensor, alpha: Tensor) -> Tensor:
        """Return the next direction `[N, C, H, W]`, not of unit length."""
        return theta - alpha.view(-1, 1, 1, 1) * gradient

    def improve(self, oracle: Oracle) -> None:
        """Find a first direction, and descend from it."""
        rays = Rays(oracle)
        rows, theta, g = _first(self, rays)
        alpha, beta = torch.full_like(g, self.alpha), torch.full_like(g, self.beta)
        least = max(LEAST_BETA, SETTLED * torch.finfo(g.dtype).eps)
        while True:
            going = oracle.going(rows)
            rows, theta, g, alpha, beta = (kept[going] for kept in (rows, theta, g, alpha, beta))
            if len(rows) == 0:
                return
            gradient = self.estimate(rays, theta, g, rows, beta)
            theta, g, alpha = _descend(self, rays, theta, g, gradient, rows, alpha, beta)
            stuck = alpha < STUCK
            alpha, beta = alpha.masked_fill(stuck, 1.0), torch.where(stuck, beta / 10, beta).clamp_min(least)


class Rays:
    """Points on rays from the images, and the distance of the boundary along them."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle

    def unit(self, theta: Tensor) -> Tensor:
        """Return directions `[N, C, H, W]` of length 1 in the norm; 0 where they are 0."""
        length = theta.abs().amax((1, 2, 3), keepdim=True) if self.oracle.norm == "linf" else l2(theta)
        return theta / length.clamp_min(torch.finfo(theta.dtype).tiny)

    def moved(self, theta: Tensor, by: Tensor) -> Tensor:
        """Return theta moved on the unit sphere: in L2 projected along the ray, in Linf clipped to the cube."""
        return (theta + by).clamp(-1, 1) if self.oracle.norm == "linf" else self.unit(theta + by)

    def at(self, theta: Tensor, length: Tensor, rows: Tensor) -> Tensor:
        """Return the points `[N, C, H, W]` at these lengths `[N]` along the directions."""
        return (self.oracle.images[rows] + length.view(-1, 1, 1, 1) * theta).clamp(0, 1)

    def wrong(self, theta: Tensor, length: Tensor, rows: Tensor) -> Tensor:
        """Return whether these points are misclassified, `[N]`; False also beyond the budget."""
        return self.oracle.wrong(self.at(theta, length, rows), rows)

    def halve(self, theta: Tensor, low: Tensor, high: Tensor, rows: Tensor, tolerance: Tensor) -> Tensor:
        """Return g `[N]` between `low` and `high`, of which the latter is misclassified, up to the tolerance `[N]`."""
        low, high = low.clone(), high.clone()
        tolerance = torch.maximum(tolerance, ROUNDINGS * torch.finfo(high.dtype).eps * high)
        while True:
            middle = (low + high) / 2
            where = ((high - low > tolerance) & self.oracle.going(rows)).nonzero().squeeze(1)
            if len(where) == 0:
                return high
            wrong = self.wrong(theta[where], middle[where], rows[where])
            high[where] = torch.where(wrong, middle[where], high[where])
            low[where] = torch.where(wrong, low[where], middle[where])

    def near(
        self, theta: Tensor, g: Tensor, rows: Tensor, tolerance: Tensor, *, below: bool = False
    ) -> Tensor:
        """Return g of these directions, looked for from a guess `[N]`; infinite where it is not found.

        With `below`, it is not looked for above the guess.
        """
        inside = self.wrong(theta, g, rows)
        low, high = torch.where(inside, 0.0, g), torch.where(inside, g, torch.inf)
        open = inside.clone() if below else torch.ones_like(inside)
        width = 0.01 * g
        for _ in range(WIDENINGS):
            where = (open & self.oracle.going(rows)).nonzero().squeeze(1)
            if len(where) == 0:
                break
            from_above = inside[where]
            length = torch.where(
                from_above, (high[where] - width[where]).clamp_min(0), low[where] + width[where]
            )
            wrong = self.wrong(theta[where], length, rows[where])
            high[where] = torch.where(wrong, length, high[where])
            low[where] = torch.where(wrong, low[where], length)
            open[where] = wrong == from_above
            width = 2 * width
        found = high.isfinite().nonzero().squeeze(1)
        settled = self.halve(theta[found], low[found], high[found], rows[found], tolerance[found])
        return high.index_put((found,), settled)


def _first(options: RaySearch, rays: Rays) -> tuple[Tensor, Tensor, Tensor]:
    """Return the images that have one `[N]`, the best direction of several `[N, C, H, W]`, and g along it `[N]`."""
    oracle = rays.oracle
    rows = oracle.start(options.starts)
    theta = oracle.found[rows] - oracle.images[rows]
    g = distance(oracle.found[rows], oracle.images[rows], oracle.norm)
    theta = rays.unit(theta)
    g = rays.halve(theta, torch.zeros_like(g), g, rows, FIRST * g)
    for _ in range(options.directions):
        if not oracle.going(rows).any():
            break
        other = rays.unit(oracle.normal(rows, 1)[:, 0])
        better = rays.wrong(other, g, rows).nonzero().squeeze(1)
        if len(better):
            zero = torch.zeros_like(g[better])
            nearer = rays.halve(other[better], zero, g[better], rows[better], FIRST * g[better])
            theta, g = theta.index_put((better,), other[better]), g.index_put((better,), nearer)
    return rows, theta, g


def _descend(
    options: RaySearch,
    rays: Rays,
    theta: Tensor,
    g: Tensor,
    gradient: Tensor,
    rows: Tensor,
    alpha: Tensor,
    beta: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return direction, g and alpha after the line search; the same direction where there was no descent."""
    best, least, alpha = theta, g, alpha.clone()
    falling = torch.ones_like(g, dtype=torch.bool)
    for longer in (True, False):
        waiting = falling if longer else ~(least < g)
        for _ in range(TRIES):
            where = (waiting & rays.oracle.going(rows)).nonzero().squeeze(1)
            if len(where) == 0:
                break
            if not longer:
                alpha[where] /= 4
            new = rays.unit(options.step(theta[where], gradient[where], alpha[where]))
            tolerance = beta[where] / SETTLED
            reached = rays.near(new, least[where], rows[where], tolerance, below=True)
            better = reached < least[where]
            if longer:
                alpha[where] *= 2
            gained = (where[better],)
            best, least = best.index_put(gained, new[better]), least.index_put(gained, reached[better])
            waiting = waiting.index_put((where,), better if longer else ~better)
    return best, least, alpha
