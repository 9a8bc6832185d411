"""OPT: zeroth-order descent of the distance of the boundary along a direction (Cheng et al., 2019).

    g^(theta)  = 1/q sum_i (g(theta + beta u_i) - g(theta)) / beta u_i       u_i normal, of length 1, i = 1 .. q

from g of `ray_search.py`, whose line search takes the step. An estimate takes q searches of the boundary, of about 12
queries each: Sign-OPT (`sign_opt.py`) takes one query for each u_i. The constants are from memory of the
authors' code and from public ports. N images that still take queries, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks.norms import Norm
from robust_nas.attacks.ray_search import SETTLED, Rays, RaySearch
from robust_nas.config import Count
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class OPT(RaySearch):
    """The nearest boundary along any direction, by finite differences of that distance (Cheng et al., 2019)."""

    norms: ClassVar[tuple[Norm, ...]] = ("l2",)
    name: Literal["opt"] = "opt"
    norm: Literal["l2"] = "l2"
    estimates: Count = 10  # q, directions of one estimate

    def estimate(self, rays: Rays, theta: Tensor, g: Tensor, rows: Tensor, beta: Tensor) -> Tensor:
        """Return the mean of the finite differences that the budget allows, `[N, C, H, W]`."""
        gradient = torch.zeros_like(theta)
        taken = torch.zeros_like(g)
        for _ in range(self.estimates):
            if not rays.oracle.going(rows).any():
                break
            u = rays.unit(rays.oracle.normal(rows, 1)[:, 0])
            moved = rays.moved(theta, beta.view(-1, 1, 1, 1) * u)
            change = rays.near(moved, g, rows, beta / SETTLED) - g
            known = change.isfinite()
            slope = torch.where(known, change / beta, 0.0)
            gradient, taken = gradient + slope.view(-1, 1, 1, 1) * u, taken + known
        return gradient / taken.clamp_min(1).view(-1, 1, 1, 1)
