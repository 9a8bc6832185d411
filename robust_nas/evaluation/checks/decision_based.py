"""White-box attacks are at least as strong as HopSkipJump, which sees decisions alone (Carlini et al., 2019).

FAIL above 5 points. There is a control (`with_control.py`). It is run at full depth alone (`findings: full`): with
fewer queries than about a thousand it says little, and they would cost most of the passes that the attacks took.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks import HopSkipJump
from robust_nas.attacks.oracle import NOT_FOUND
from robust_nas.config import Count
from robust_nas.evaluation.checks.with_control import ControlledCheck

if TYPE_CHECKING:
    from robust_nas.attacks import Attack
    from robust_nas.evaluation.cost import Cost
    from robust_nas.evaluation.state import EvaluationState

TITLE = "white box at least as strong as decision-based"


class DecisionBased(ControlledCheck):
    """HopSkipJump breaks no survivor; it is left out where the list has a decision-based attack of its own."""

    title: ClassVar[str] = TITLE
    stronger: ClassVar[str] = "take more queries, or the suite black-box"
    most: ClassVar[int] = 16
    name: Literal["decision-based"] = "decision-based"
    queries: Count = 1000  # a survivor

    def applies(self, state: EvaluationState) -> bool:
        """Return whether findings are at full depth, and the list has no decision-based attack."""
        return state.full_depth and not state.asks_for(decisions=True)

    def undefined(self, state: EvaluationState) -> str | None:
        """Return whether HopSkipJump does not know the norm."""
        if state.threat_model.norm in HopSkipJump.norms:
            return super().undefined(state)
        return f"HopSkipJump is not defined in {state.threat_model.norm}"

    def doubt(self, cost: Cost, broken: int) -> str:
        """Return that it never started, where it broke nothing at all and some images had no starting point."""
        return NOT_FOUND if NOT_FOUND in cost.flags and not broken else ""

    def attack(self, state: EvaluationState) -> Attack:
        """Return HopSkipJump under the threat model."""
        return HopSkipJump(**state.limits, queries=self.queries, eot=state.eot)

    def missed(self, state: EvaluationState) -> str:
        """Return the reason for a FAIL."""
        return "an attack that sees decisions alone does what the white box did not; run the suite autoattack"

    def fine(self, state: EvaluationState) -> str:
        """Return the text of a PASS."""
        return f"no survivor falls to HopSkipJump with {self.queries} queries"
