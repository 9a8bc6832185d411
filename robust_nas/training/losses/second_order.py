"""Second-order adversarial training: L = CE(f(x'), y), x' by steps that see the curvature (style of Qian et al., 2024).

Adversarial training (`pgd_at.py`) with the attack `second-order` (`attacks/second_order.py`), where what is inferred of
the paper is said. Nothing is differentiated three times: x' is a constant of the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from robust_nas.attacks import Attack, attack_field
from robust_nas.training.loss import STEP_PASSES, Loss, LossValue, attack_passes, cross_entropy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class SecondOrderAT(Loss):
    """Cross-entropy on images of a second-order attack alone (in the style of Qian et al., 2024)."""

    name: Literal["second-order"] = "second-order"
    attack: Annotated[
        Attack,
        attack_field(
            lambda attack: attack.for_training and attack.twice_differentiated,
            "an attack of second order is needed; for others, the loss pgd-at",
            default="second-order",
            presets={"keep": "last"},
        ),
    ] = Field(default={}, validate_default=True)

    @property
    def inner_attack(self) -> Attack:
        """Return the attack that makes the images of a step."""
        return self.attack

    @property
    def passes(self) -> int:
        """Return K (2 + 2 m) + 3 for an attack of K steps with m Krylov vectors."""
        return attack_passes(self.attack) + STEP_PASSES

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> LossValue:
        """Return the cross-entropy on the attacked images `[B, C, H, W]`."""
        logits = model(self.attack.craft(model, images, labels, generator))
        return LossValue(cross_entropy(logits, labels), logits)
