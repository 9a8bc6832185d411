"""White-box attacks are at least as strong as attacks made on other models (Carlini et al., 2019).

FAIL above 5 points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks import Transfer
from robust_nas.evaluation.checks.survivors import SurvivorCheck

if TYPE_CHECKING:
    from robust_nas.attacks import Attack
    from robust_nas.evaluation.state import EvaluationState


class TransferredAttack(SurvivorCheck):
    """Attacks made on the surrogates break no survivor."""

    title: ClassVar[str] = "white box at least as strong as transfer"
    share: ClassVar[float] = 0.5
    name: Literal["transfer"] = "transfer"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether there are surrogates, and no attack of the list was made on other models."""
        return bool(state.surrogates) and not state.guided_by("surrogates")

    def attack(self, state: EvaluationState) -> Attack:
        """Return the default transfer attack under the threat model."""
        return Transfer.model_validate({**state.limits, "surrogates": state.surrogates})

    def missed(self, state: EvaluationState) -> str:
        """Return the reason for a FAIL."""
        return "attacks made on other models do what the white box did not"

    def fine(self, state: EvaluationState) -> str:
        """Return the text of a PASS."""
        return f"no survivor falls to attacks made on {len(state.surrogates)} other models"
