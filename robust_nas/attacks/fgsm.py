"""FGSM: one signed gradient step of length eps from the image itself (Goodfellow et al., 2015).

x' = P(x + eps d(grad_x L(f(x), y)))        d: sign (Linf), unit length (L2); P: onto the box
"""

from __future__ import annotations

from typing import ClassVar, Literal

from robust_nas.attacks.gradient import GradientAttack, Plan


class FGSM(GradientAttack):
    """One gradient step of length eps from the image itself (Goodfellow et al., 2015)."""

    for_training: ClassVar[bool] = True
    name: Literal["fgsm"] = "fgsm"
    fold: bool = False  # attack a folded copy. A single step does not pay for it

    def plan(self) -> Plan:
        """Return one step from the image."""
        return Plan(steps=1, rule=self.fixed_step(self.eps), radius=self.eps, start="clean")
