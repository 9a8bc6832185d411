"""Sign-OPT: descent by the sign of the directional derivatives of g, one query each (Cheng et al., 2020).

    g^(theta)  = 1/Q sum_i sign(g(theta + beta u_i) - g(theta)) u_i          u_i normal, of length 1, i = 1 .. Q
    sign       = -1 where P(x + g(theta) (theta + beta u_i) / ||..||) is misclassified, else +1

g and the line search are those of `ray_search.py`; Q = 200 from memory of the authors' code and from public ports.

Linf: lengths are largest entries, and theta' = clip(theta - alpha sign(g^)) to -1..1. As remembered, the authors'
code for Linf moves by g^ itself, as in L2; the sign is ours: the directions of length 1 are a cube, at whose corners
g of a linear model is least. N images that still take queries, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks.norms import Norm
from robust_nas.attacks.ray_search import Rays, RaySearch
from robust_nas.config import Count
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class SignOPT(RaySearch):
    """The nearest boundary along any direction, by signs of that distance's change (Cheng et al., 2020)."""

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    name: Literal["sign-opt"] = "sign-opt"
    estimates: Count = 200  # Q, queries of one estimate

    def step(self, theta: Tensor, gradient: Tensor, alpha: Tensor) -> Tensor:
        """Return the next direction, not of unit length: in Linf by signs, within the cube."""
        if self.norm == "linf":
            return super().step(theta, gradient.sign(), alpha).clamp(-1, 1)
        return super().step(theta, gradient, alpha)

    def estimate(self, rays: Rays, theta: Tensor, g: Tensor, rows: Tensor, beta: Tensor) -> Tensor:
        """Return the mean of the signed directions, of at most half of the queries left, `[N, C, H, W]`."""
        oracle = rays.oracle
        most = torch.minimum(oracle.left[rows] // 2, torch.full_like(rows, self.estimates)).clamp_min(1)
        gradient = torch.zeros_like(theta)
        for first, number in oracle.pieces(rows, int(most.max())):
            u = oracle.normal(rows, number)
            u = rays.unit(u.flatten(0, 1)).view_as(u)
            by = beta.view(-1, 1, 1, 1, 1) * u
            moved = rays.moved(theta.unsqueeze(1).expand_as(u).flatten(0, 1), by.flatten(0, 1)).view_as(u)
            points = oracle.images[rows].unsqueeze(1) + g.view(-1, 1, 1, 1, 1) * moved
            answers = oracle.ask(points.clamp(0, 1), rows, most - first)
            sign = answers.asked.to(u.dtype) * (1 - 2 * answers.wrong.to(u.dtype))
            gradient = gradient + (sign.view(*sign.shape, 1, 1, 1) * u).sum(1)
        return gradient / most.view(-1, 1, 1, 1)
