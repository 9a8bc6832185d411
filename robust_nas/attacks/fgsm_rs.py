"""FGSM-RS: one signed step of 1.25 eps from a uniform start, projected (Wong et al., 2020).

x_0 = P(x + u),  u uniform in the ball;     x' = P(x_0 + 1.25 eps sign(grad_x L(f(x_0), y)))
"""

from __future__ import annotations

from typing import ClassVar, Literal

from robust_nas.attacks.gradient import GradientAttack, Plan
from robust_nas.attacks.norms import Norm
from robust_nas.config import Positive


class FGSMRS(GradientAttack):
    """FGSM from a uniform random start, step 1.25 eps, projected (Wong et al., 2020). For training."""

    for_training: ClassVar[bool] = True
    norms: ClassVar[tuple[Norm, ...]] = ("linf",)
    name: Literal["fgsm-rs"] = "fgsm-rs"
    fold: bool = False  # attack a folded copy. A single step does not pay for it
    norm: Literal["linf"] = "linf"
    step_size: Positive | None = None  # None: 1.25 eps
    keep: Literal["best", "last"] = "last"  # best iterate of every example, or the last one

    @property
    def step(self) -> float:
        """The step size that is used."""
        return 1.25 * self.eps if self.step_size is None else self.step_size

    def plan(self) -> Plan:
        """Return one step from a uniform start."""
        return Plan(
            steps=1, rule=self.fixed_step(self.eps), radius=self.eps, start="uniform", start_radius=self.eps
        )
