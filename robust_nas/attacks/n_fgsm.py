"""N-FGSM: one signed step from noise of k eps, not projected onto the ball (de Jorge et al., 2022).

x_0 = x + u,  u uniform in the ball of k eps;     x' = clip(x_0 + step_size sign(grad_x L(f(x_0), y)), 0, 1)
"""

from __future__ import annotations

from typing import ClassVar, Literal

from robust_nas.attacks.gradient import GradientAttack, Plan
from robust_nas.attacks.norms import Norm
from robust_nas.config import NonNegative, Positive


class NFGSM(GradientAttack):
    """FGSM from noise of k eps, not projected back onto the ball, only into the box (de Jorge et al., 2022).

    For training alone: the result lies within k eps + step_size of the image, not within eps.
    """

    for_training: ClassVar[bool] = True
    bounded: ClassVar[bool] = False
    norms: ClassVar[tuple[Norm, ...]] = ("linf",)
    name: Literal["n-fgsm"] = "n-fgsm"
    fold: bool = False  # attack a folded copy. A single step does not pay for it
    norm: Literal["linf"] = "linf"
    noise: NonNegative = 2.0  # k; 0 is FGSM
    step_size: Positive | None = None  # None: eps
    keep: Literal["last"] = "last"  # fixed: the last iterate

    @property
    def step(self) -> float:
        """The step size that is used."""
        return self.eps if self.step_size is None else self.step_size

    @property
    def radius(self) -> float:
        """The largest perturbation that the attack may make: k eps + step_size."""
        return self.noise * self.eps + self.step

    def plan(self) -> Plan:
        """Return one step from noise; the box alone bounds it."""
        return Plan(
            steps=1,
            rule=self.fixed_step(None),
            radius=None,
            start="uniform",
            start_radius=self.noise * self.eps,
        )
