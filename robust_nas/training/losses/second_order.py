"""Second-order adversarial training: L = CE(f(x'), y), x' by steps that see the curvature (style of Qian et al., 2024).

Adversarial training (`pgd_at.py`) with the attack `second-order` (`attacks/second_order.py`), where what is inferred of
the paper is said: K (2 + 2 m) + 3 passes for K steps with m Krylov vectors. Nothing is differentiated three times: x'
is a constant of the step.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from robust_nas.attacks import Attack, attack_field
from robust_nas.training.losses.pgd_at import PGDAT


class SecondOrderAT(PGDAT):
    """Cross-entropy on images of a second-order attack alone (in the style of Qian et al., 2024)."""

    name: Literal["second-order"] = "second-order"  # type: ignore[assignment] # another name than its base
    # on the training images, of second order
    attack: Annotated[
        Attack,
        attack_field(
            lambda attack: attack.for_training and attack.twice_differentiated,
            "an attack of second order is needed; for others, the loss pgd-at",
            default="second-order",
            presets={"keep": "last"},
        ),
    ] = Field(default={}, validate_default=True)
