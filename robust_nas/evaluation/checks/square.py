"""White-box attacks are at least as strong as Square, which needs no gradient (Carlini et al., 2019).

FAIL above 5 points. There is a control (`with_control.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks import Square
from robust_nas.config import Count
from robust_nas.evaluation.checks.with_control import ControlledCheck

if TYPE_CHECKING:
    from robust_nas.attacks import Attack
    from robust_nas.evaluation.state import EvaluationState

TITLE = "white box at least as strong as Square"


class SquareQueries(ControlledCheck):
    """Square breaks no survivor; it is left out where the list has an attack by scores of its own."""

    title: ClassVar[str] = TITLE
    stronger: ClassVar[str] = "take more queries, or the suite autoattack"
    name: Literal["square"] = "square"
    queries: Count = 500  # a survivor

    def applies(self, state: EvaluationState) -> bool:
        """Return whether the list has no attack by scores."""
        return not state.asks_for(decisions=False)

    def attack(self, state: EvaluationState) -> Attack:
        """Return Square under the threat model."""
        return Square(**state.limits, queries=self.queries, eot=state.eot)

    def undefined(self, state: EvaluationState) -> str | None:
        """Return whether the images are too small for its tiles, or Square does not know the norm."""
        norm = state.threat_model.norm
        if norm not in Square.norms:
            return f"Square is not defined in {norm} here; the suite autoattack has the authors' own"
        if super().undefined(state) is None:
            return None
        height, width = state.shape[1:]
        return f"Square in {state.threat_model.norm} is not defined for images of {height} x {width} pixels"

    def missed(self, state: EvaluationState) -> str:
        """Return the reason for a FAIL."""
        return "a gradient-free attack does what the white box did not; run the suite autoattack"

    def fine(self, state: EvaluationState) -> str:
        """Return the text of a PASS."""
        return f"no survivor falls to Square with {self.queries} queries"
