"""Stein variational gradient descent: particles that descend a loss and move away from each other.

    phi_i = 1/n sum_j [k(th_j, th_i) g_j - gamma grad_{th_j} k(th_j, th_i)]
          = 1/n sum_j [k_ji g_j + gamma k_ji (th_j - th_i) / h^2],           th_i <- th_i - step phi_i
    k(a, b) = exp(-|a - b|^2 / (2 h^2)),      h = median over pairs i < j of |th_i - th_j|

This is the update of Liu and Wang (NeurIPS 2016) with its sign turned, so that it is descended: g_j is the gradient of
-log p at particle j, and gamma 1. It is line 10 of Algorithm 1 of IG-BNN (ICLR 2022 submission), sum_j [k_ji grad_j L -
gamma/n grad_{th_j} k_ji], for g_j = n grad_j L. Descending +gamma (th_j - th_i) moves th_i away from th_j.

One particle descends its own gradient. Identical particles have k = 1 and no repulsion: all move by the mean of the
gradients, and nothing tells one from the other; the smallest difference between them is repelled. Where more than half
of the pairs are identical the median is 0, and phi is its limit for h -> 0: every particle descends the sum of the
gradients of those at its place, over n. `scaled-median` is h^2 = median^2 / (2 log(n + 1)): with it the weights of n
particles, all as far from each other as the median, sum to less than 2 / n (with `median`, 1/n + (n - 1)/n e^(-1/2)).

n particles, P numbers of each.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from robust_nas.config import Positive
from robust_nas.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

Bandwidth = Literal["median", "scaled-median"] | Positive  # h, or the rule that gives it


def svgd_directions(
    particles: Tensor, gradients: Tensor, *, gamma: float = 1.0, bandwidth: Bandwidth = "median"
) -> Tensor:
    """Return phi `[n, P]`, which is descended, of particles `[n, P]` with gradients g `[n, P]` of their losses."""
    count = len(particles)
    if count == 1:
        return gradients
    h = _bandwidth(particles, bandwidth)
    least = torch.finfo(particles.dtype).tiny ** 0.5  # whose square is not rounded to 0
    apart = h > least
    h = torch.where(apart, h, 1.0)
    directions = []
    for own in particles:  # differences before sums, which keep their digits, in the memory of the particles
        difference = (particles - own) / h  # [n, P], of th_j - th_i
        squared = difference.square().sum(1)
        k = torch.where(apart, (-squared / 2).exp(), (squared == 0).to(squared.dtype))
        repulsion = torch.where(apart, gamma / h, 0.0) * (k @ difference)
        directions.append((k @ gradients + repulsion) / count)
    return torch.stack(directions)


def _bandwidth(particles: Tensor, bandwidth: Bandwidth) -> Tensor:
    """Return h, a scalar on the device of particles `[n, P]`, n > 1."""
    if not isinstance(bandwidth, str):
        return particles.new_tensor(bandwidth)
    distances = F.pdist(particles).sort().values
    median = (distances[(len(distances) - 1) // 2] + distances[len(distances) // 2]) / 2
    return median / math.sqrt(2 * math.log(len(particles) + 1)) if bandwidth == "scaled-median" else median
