"""HopSkipJump: along the boundary's normal, which answers alone estimate (Chen, Jordan and Wainwright, 2020).

    x_t      = approach(x~_{t-1})                    the boundary on the way to x, halving until theta of it is left
    u_b      = (P(x_t + delta_t u) - x_t) / delta_t  u uniform on the unit sphere, b = 1 .. B_t, P: onto the box 0..1
    S        = 1/(B_t - 1) sum_b (phi_b - mean phi) u_b     phi_b = +1 where x_t + delta_t u_b is misclassified, else -1
    v_t      = S / ||S||_2 (L2), sign(S) (Linf);  +-mean u where all phi_b are alike
    x~_t     = P(x_t + xi v_t)                       xi = ||x_t - x|| / sqrt(t), halved until x~_t is misclassified

    B_t      = B_0 sqrt(t);    theta = gamma / d^{3/2} (L2), gamma / d^2 (Linf)
    delta_t  = sqrt(d) theta ||x~_{t-1} - x|| (L2), d theta ||x~_{t-1} - x|| (Linf); 0.1 at t = 1

Algorithm 2 of the paper; its constants from memory of the authors' code and from public ports. Ours: an estimate
takes at most half of the queries left, so that its direction can still be used; theta is no smaller than 8 roundings
of the images' type. N images that still take queries, d values in an image, C channels, H height, W width.
"""

from __future__ import annotations

import math
from itertools import count as numbers
from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks.minimal import distance
from robust_nas.attacks.norms import Norm, direction, l2
from robust_nas.attacks.oracle import Oracle, QueryAttack
from robust_nas.config import Count, Positive
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

FIRST_DELTA = 0.1  # of the box, at t = 1
HALVINGS = 25  # of xi, after which an image stays where it is
ROUNDINGS = 8  # least theta, in roundings of a value next to 1


class HopSkipJump(QueryAttack):
    """The nearest point of the boundary, by its normal estimated from decisions (Chen et al., 2020)."""

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    name: Literal["hop-skip-jump"] = "hop-skip-jump"
    first_estimate: Count = 100  # B_0, queries of the first estimate
    largest_estimate: Count = 10_000  # queries of an estimate at most
    gamma: Positive = 1.0  # scale of theta and delta
    starts: Count = 100  # random images that may be tried before one is misclassified

    def improve(self, oracle: Oracle) -> None:
        """Estimate, jump and approach the image, again and again."""
        theta, share = self.scales(oracle)
        rows = oracle.start(self.starts)
        x = oracle.found[rows]
        delta = torch.full_like(oracle.distance[rows], FIRST_DELTA)
        x = oracle.approach(x, rows, theta)
        for t in numbers(1):
            going = oracle.going(rows)
            rows, x, delta = rows[going], x[going], delta[going]
            if len(rows) == 0:
                return
            count = min(int(self.first_estimate * math.sqrt(t)), self.largest_estimate)
            v = direction(estimate(oracle, x, rows, delta, count), self.norm)
            x = _jump(oracle, x, rows, v, distance(x, oracle.images[rows], self.norm) / math.sqrt(t))
            delta = share * distance(x, oracle.images[rows], self.norm)
            x = oracle.approach(x, rows, theta)

    def scales(self, oracle: Oracle) -> tuple[float, float]:
        """Return theta, and delta as a share of the distance."""
        d = oracle.size
        least = ROUNDINGS * torch.finfo(oracle.images.dtype).eps
        if self.norm == "linf":
            theta = max(self.gamma / d**2, least)
            return theta, d * theta
        theta = max(self.gamma / d**1.5, least)
        return theta, math.sqrt(d) * theta


def estimate(oracle: Oracle, x: Tensor, rows: Tensor, delta: Tensor, count: int) -> Tensor:
    """Return the estimate of the boundary's normal at `x`, `[N, C, H, W]`, towards the misclassified side.

    `delta` `[N]` is the radius of the sphere around `x` on which at most `count` points are asked for.
    """
    radius = delta.view(-1, 1, 1, 1, 1)
    most = torch.minimum(oracle.left[rows] // 2, torch.full_like(rows, count)).clamp_min(1)
    weighted, total = torch.zeros_like(x), torch.zeros_like(x)  # sums of phi_b u_b and of u_b
    phi_sum, asked = torch.zeros_like(delta), torch.zeros_like(delta)
    for first, number in oracle.pieces(rows, int(most.max())):
        u = oracle.normal(rows, number)
        u = u / l2(u.flatten(0, 1)).view(*u.shape[:2], 1, 1, 1)
        points = (x.unsqueeze(1) + radius * u).clamp(0, 1)
        u = (points - x.unsqueeze(1)) / radius
        answers = oracle.ask(points, rows, most - first)
        known = answers.asked.to(x.dtype)
        phi = known * (2 * answers.wrong.to(x.dtype) - 1)
        weighted = weighted + (phi.view(*phi.shape, 1, 1, 1) * u).sum(1)
        total = total + (known.view(*known.shape, 1, 1, 1) * u).sum(1)
        phi_sum, asked = phi_sum + phi.sum(1), asked + known.sum(1)
    mean = (phi_sum / asked.clamp_min(1)).view(-1, 1, 1, 1)
    # Where all phi are alike the difference is 0; its length does not matter.
    return torch.where(mean.abs() == 1, mean * total, weighted - mean * total)


def _jump(oracle: Oracle, x: Tensor, rows: Tensor, v: Tensor, xi: Tensor) -> Tensor:
    """Return the first misclassified one of P(x + xi v), P(x + xi v / 2), ..; `x` where there is none."""
    waiting = torch.arange(len(rows), device=rows.device)
    for _ in range(HALVINGS):
        waiting = waiting[oracle.going(rows[waiting])]
        if len(waiting) == 0:
            break
        further = (x[waiting] + xi[waiting].view(-1, 1, 1, 1) * v[waiting]).clamp(0, 1)
        wrong = oracle.wrong(further, rows[waiting])
        x = x.index_put((waiting[wrong],), further[wrong])
        waiting = waiting[~wrong]
        xi = xi / 2
    return x
