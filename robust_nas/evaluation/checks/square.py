"""White-box attacks are at least as strong as Square, which needs no gradient (Carlini et al., 2019).

FAIL above 5 points. A fifth of the images are a control: images that the white box broke. Where Square
breaks few of those, that it breaks no survivor says little, and the finding says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks import Square
from robust_nas.config import Count
from robust_nas.evaluation.checks.survivors import SurvivorCheck

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks import Attack
    from robust_nas.evaluation.cost import Cost
    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding

CONTROL = 5  # images, one of which is a control
POWER = 0.5  # share of the control, below which a PASS says little
TITLE = "white box at least as strong as Square"


class SquareQueries(SurvivorCheck):
    """Square breaks no survivor; it is left out where the list has a query attack of its own."""

    title: ClassVar[str] = TITLE
    name: Literal["square"] = "square"
    queries: Count = 500  # per survivor

    def applies(self, state: EvaluationState) -> bool:
        """Return whether the list has no query attack."""
        return not state.guided_by("queries")

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

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return how many survivors Square breaks, and in the text how many of those that the white box broke."""
        broken = (state.clean_right & ~state.right).nonzero().squeeze(1)[: len(indices) // CONTROL]
        (found,) = super().run(state, indices[: len(indices) - len(broken)], cost)
        if not len(broken):
            return [found]
        judged = state.attempt(self.attack(state), broken, cost, f"{self.title} control")
        count = int((~judged.right).sum())
        text = f"{found.text}; it breaks {count} of {len(broken)} images that the white box broke"
        if found.status == "PASS" and count < POWER * len(broken):
            text += ", so that this says little: take more queries, or the suite autoattack"
        return [replace(found, text=text)]

    def missed(self, state: EvaluationState) -> str:
        """Return the reason for a FAIL."""
        return "a gradient-free attack does what the white box did not; run the suite autoattack"

    def fine(self, state: EvaluationState) -> str:
        """Return the text of a PASS."""
        return f"no survivor falls to Square with {self.queries} queries"
