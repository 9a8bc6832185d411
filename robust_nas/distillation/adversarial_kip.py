"""Adversarial KIP: support images whose kernel regression is right on attacked images (Tsilivis, Su and Kempe, 2022).

    min over X in [0, 1] (and y) of   1/2 mean || f(X'*) - y' ||^2
    X'* = argmax over the ball around X' of 1/2 || f(.) - y' ||^2,    f(x) = k(x, X) (k(X, X) + reg tr / n I)^-1 y

The maximum is taken by PGD on f with X detached; the step then holds X'* fixed. Source: "Can we achieve robustness
from data alone?" (arXiv 2207.11727), of which the abstract was available and the text was not: the bi-level problem
and PGD on kernel regression are the paper's, everything else is inferred, with the options of KIP. The authors report
that the robustness under PGD does not hold under other attacks.

B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks.norms import direction, noise_in_ball, project
from robust_nas.config import Count, Positive
from robust_nas.distillation.distiller import Distiller
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from robust_nas.attacks import ThreatModel
    from robust_nas.nets.kernel_regression import KernelRegressionNetwork


class AdversarialKIP(Distiller):
    """Support images that are learned from attacked images."""

    chooses_by: ClassVar[Literal["clean", "robust"]] = "robust"

    name: Literal["adv-kip"] = "adv-kip"
    inner_steps: Count = 10  # PGD steps on the images of a step
    inner_step_size: Positive | None = None  # None: 2.5 eps / steps
    random_start: bool = True  # whether PGD starts at a random point of the ball

    def attacked(
        self,
        network: KernelRegressionNetwork,
        images: Tensor,
        targets: Tensor,
        threat_model: ThreatModel,
        generator: Generator,
    ) -> Tensor:
        """Return the last iterates of PGD on the squared error, `[B, C, H, W]`."""
        eps, norm = threat_model.eps, threat_model.norm
        if eps == 0:
            return images
        size = 2.5 * eps / self.inner_steps if self.inner_step_size is None else self.inner_step_size
        x = images
        if self.random_start:
            x = project(images + noise_in_ball(images, eps, norm, generator), images, eps, norm)
        for _ in range(self.inner_steps):
            x = x.detach().requires_grad_()
            error = 0.5 * (network(x) - targets).square().sum()
            (gradient,) = torch.autograd.grad(error, x)
            x = project(x.detach() + size * direction(gradient, norm), images, eps, norm)
        return x.detach()
