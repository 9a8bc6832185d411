"""Second-order attack in a Krylov subspace, Hessian-free: PGD whose steps see the curvature of the loss.

    l(x + d) ~ l + g'd + d'Hd / 2,   g = grad_x l,  H = hess_x l,   d in K_m = span{g, Hg, .., H^(m-1) g}

    trust-region   d = argmax of the model over ||d||_2 = r in K_m                                     (default)
    gmres          d = argmin ||H d + g|| over K_m,  -d where g'd < 0
    saddle-free    d = Q |Q'HQ|^-1 Q'g                            (Dauphin et al., 2014, as an ascent)

    x_{t+1} = P(x_t + step_size sign(d))    (Linf)        P(x_t + step_size d / ||d||_2)    (L2)

In the style of Qian et al., "Developing Hessian-free second-order adversarial examples for adversarial training" (AMCS
34(3), 2024; arXiv 2207.01396). Of it only the abstract was available: the adversarial direction is a combination of
Hessian-vector products in a Krylov subspace, solved by GMRES. Everything else here is inferred or our choice: the trust
region, all defaults, the outer loop, and how the sign is handled.

The trap of the sign. The Newton step d = -H^-1 g goes to a stationary point of the model. The cross-entropy of a
locally linear network has H = J'(diag p - pp')J, which is positive semidefinite, so that g'd = -g'H^+ g <= 0: the step
leads DOWN the loss, and an attack that takes it is worse than none. `gmres` therefore turns d around where g'd < 0, as
a first-order ascent direction; how the paper does it is not known. The trust region has no such trap: g / ||g|| is
among its candidates, so that its value of the model is never below that of the gradient step of equal length.

Q, an orthonormal basis of K_m, is made by Lanczos with full re-orthogonalisation, for each example by itself; H is
never formed. A piecewise-linear network of C classes has H of rank C - 1 and g in its range: K_(C-1) is then all.
With m = 1 every solver gives the gradient, and the attack is PGD to the bit, without a Hessian-vector product.

Cost: a step is a forward pass, a gradient, and m Hessian-vector products of about 2 backward passes each (none for
m = 1). The network must be differentiable twice: the folded copy of a supernet is not, so that the supernet is attacked
as it is; the result says so. Candidates are never made in bf16: second derivatives are differences of large numbers.

Shapes: B batch, D = C H W pixels, m dimension of the subspace, at most m where it is exhausted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks.attack import Passes
from robust_nas.attacks.checks import HESSIAN_PASSES
from robust_nas.attacks.losses import Loss
from robust_nas.attacks.pgd import ProjectedAscent
from robust_nas.config import Count
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks.attacked_model import AttackedModel

Solver = Literal["trust-region", "gmres", "saddle-free"]
BISECTIONS = 60  # of the trust region's multiplier; float64 has 53 bits
FLAT = 1e-3  # of the largest curvature: below it, saddle-free takes a curvature for this one


class SecondOrder(ProjectedAscent):
    """PGD along second-order directions in a Krylov subspace of dimension `krylov` (in the style of Qian et al., 2024).

    The options are those of PGD, with fewer steps, and `solver`. A loss that is linear in the logits (`margin`) has no
    curvature on a piecewise-linear network: the directions are then the gradients.
    """

    twice_differentiated: ClassVar[bool] = True
    name: Literal["second-order"] = "second-order"
    bn: Literal["eval"] = (
        "eval"  # running batch-norm statistics. Those of the batch would couple the examples
    )
    precision: Literal["float32"] = (
        "float32"  # float32, or float64 where the model and the images are; never bf16
    )
    steps: Count = 5  # second-order steps of a run
    krylov: Count = 4  # m, dimension of the Krylov subspace
    solver: Solver = "trust-region"  # of the subproblem in the subspace

    @property
    def label(self) -> str:
        """Return the name with steps and m: `second-order-5-k4`, `second-order-5-k4-gmres`."""
        solver = "" if self.solver == "trust-region" else f"-{self.solver}"
        first, *rest = super().label.removeprefix("pgd-").split("-", 1)
        return "-".join([f"second-order-{first}-k{self.krylov}{solver}", *rest])

    @property
    def products(self) -> int:
        """Return the Hessian-vector products of a step."""
        return self.krylov if self.krylov > 1 else 0

    @property
    def passes(self) -> Passes:
        """Return PGD's passes, and 2 m backward passes more a step."""
        forward, gradients = super().passes
        return Passes(forward, gradients * (1 + HESSIAN_PASSES * self.products))

    @property
    def crafting_passes(self) -> int:
        """Return 2 + 2 m passes a step."""
        return super().passes.backward * (2 + HESSIAN_PASSES * self.products)

    def ascent(self, model: AttackedModel, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits `[B, K]`, losses `[B]` and the second-order directions `[B, C, H, W]` of images."""
        if self.products == 0:
            return model.gradient(x, loss)
        logits, values, gradient, product = model.curvature(x, loss)
        flat = gradient.flatten(1).double()  # [B, D]

        def hessian(v: Tensor) -> Tensor:
            return product(v.to(x.dtype).view_as(x)).flatten(1).double()

        basis, images = krylov(hessian, flat, self.krylov, torch.finfo(x.dtype).eps)
        along = solve(self.solver, basis, images, flat, self._radius(x))
        return logits, values, along.to(x.dtype).view_as(x)

    def _radius(self, x: Tensor) -> float:
        """Return the L2 length of a step: that of a signed one where the norm is Linf."""
        return float(self.step) * (x[0].numel() ** 0.5 if self.norm == "linf" else 1.0)


def krylov(
    hessian: Callable[[Tensor], Tensor], gradient: Tensor, m: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis Q `[B, m + 1, D]` of Krylov vectors, and H q of the first m `[B, m, D]`.

    The first vector is g / ||g||. Vectors behind an exhausted subspace (a residual below `tolerance`, relative to the
    largest ||H q||) are zero, as are all where g is zero.
    """
    q = _normalised(gradient, torch.zeros_like(gradient[:, 0]))
    basis, images, largest = [q], [], torch.zeros_like(gradient[:, 0])
    for _ in range(m):
        image = hessian(q)
        images.append(image)
        largest = torch.maximum(largest, image.norm(dim=1))
        known = torch.stack(basis, 1)  # [B, j, D]
        residual = image
        for _ in range(2):  # once leaves what rounding left
            residual = residual - torch.einsum(
                "bj,bjd->bd", torch.einsum("bjd,bd->bj", known, residual), known
            )
        q = _normalised(residual, 10 * tolerance * largest)
        basis.append(q)
    return torch.stack(basis, 1), torch.stack(images, 1)


def _normalised(vectors: Tensor, least: Tensor) -> Tensor:
    """Return vectors `[B, D]` of length 1, zero where their length is not above `least` `[B]`."""
    length = vectors.norm(dim=1)
    kept = length > least
    return torch.where(kept, 1 / torch.where(kept, length, 1.0), 0.0).unsqueeze(1) * vectors


def solve(solver: Solver, basis: Tensor, images: Tensor, gradient: Tensor, radius: float) -> Tensor:
    """Return directions `[B, D]` from what `krylov` gives and the gradients `[B, D]`; the gradient where there is none.

    With `trust-region` they have length `radius`; every direction has a part along the gradient that is not negative.
    """
    m = images.shape[1]
    extended = torch.einsum("bid,bjd->bij", basis, images)  # [B, m + 1, m], of Q'HQ with one row more
    start = torch.einsum("bid,bd->bi", basis, gradient)  # [B, m + 1], (||g||, 0, ..)
    if solver == "gmres":
        z = -(torch.linalg.pinv(extended) @ start.unsqueeze(2)).squeeze(2)
    else:
        curvature = (extended[:, :m] + extended[:, :m].mT) / 2
        empty = basis[:, :m].abs().amax(2) == 0
        bound = curvature.abs().sum((1, 2)) + 1
        # A vector that is not there gets a curvature that no solution goes along.
        w, v = torch.linalg.eigh(curvature - torch.diag_embed(empty * bound.unsqueeze(1)))
        c = (v.mT @ start[:, :m].unsqueeze(2)).squeeze(2)
        if solver == "saddle-free":
            steep = torch.maximum(w.abs(), FLAT * w.abs().amax(1, keepdim=True))
            z = c / torch.where(steep == 0, 1.0, steep)
        else:
            z = on_sphere(w, c, radius)
        z = (v @ z.unsqueeze(2)).squeeze(2)
    found = torch.einsum("bi,bid->bd", z, basis[:, :m])
    slope = (found * gradient).sum(1, keepdim=True)
    found = torch.where(slope < 0, -found, found)
    return torch.where(slope == 0, gradient, found)


def on_sphere(w: Tensor, c: Tensor, radius: float) -> Tensor:
    """Return the maximiser of c'z + z' diag(w) z / 2 over ||z|| = radius, `[B, m]`; w `[B, m]` is in rising order.

    z = c / (lam - w) with lam > max w, found by bisection on the length of z; where c has next to no part along the
    largest w (the hard case), what the length lacks is put there.
    """
    gaps = w[:, -1:] - w  # [B, m], 0 in the last place
    low = torch.zeros_like(w[:, :1])
    high = (
        c.norm(dim=1, keepdim=True) / radius if radius > 0 else low
    )  # of lam - max w: z is not longer there
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        long = _scaled(c, gaps + middle).norm(dim=1, keepdim=True) > radius
        low, high = torch.where(long, middle, low), torch.where(long, high, middle)
    z = _scaled(c, gaps + high)
    others = z[:, :-1]
    last = (radius**2 - others.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
    return torch.cat([others, torch.where(c[:, -1:] < 0, -last, last)], 1) * c.any(1, keepdim=True)


def _scaled(c: Tensor, gaps: Tensor) -> Tensor:
    """Return c / gaps, zero where c is."""
    return torch.where(c == 0, 0.0, c / gaps.clamp_min(torch.finfo(c.dtype).tiny))
