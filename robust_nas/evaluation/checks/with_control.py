"""The base of checks that attack survivors by queries: with a control, so that a PASS of a weak attack is seen.

A fifth of the images are a control: images that the white box broke. Where the attack breaks few of those, that it
breaks no survivor says little, and the finding says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from robust_nas.evaluation.checks.survivors import SurvivorCheck

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.cost import Cost
    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding

CONTROL = 5  # images, one of which is a control
POWER = 0.5  # share of the control, below which a PASS says little


class ControlledCheck(SurvivorCheck):
    """An attack on survivors, and on a few images that the white box broke."""

    stronger: ClassVar[str] = ""  # what would say more than a weak PASS

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return how many survivors fall, and in the text how many of those that the white box broke."""
        broken = (state.clean_right & ~state.right).nonzero().squeeze(1)[: len(indices) // CONTROL]
        (found,) = super().run(state, indices[: len(indices) - len(broken)], cost)
        if not len(broken):
            return [self._doubted(found, cost, 0)]
        judged = state.attempt(self.attack(state), broken, cost, f"{self.title} control")
        count = int((~judged.right).sum())
        text = f"{found.text}; it breaks {count} of {len(broken)} images that the white box broke"
        if found.status == "PASS" and count < POWER * len(broken):
            text += f", so that this says little: {self.stronger}"
        return [self._doubted(replace(found, text=text), cost, count)]

    def doubt(self, cost: Cost, broken: int) -> str:
        """Return why a PASS says nothing where the attack broke `broken` images of the control; empty where it does."""
        return ""

    def _doubted(self, found: Finding, cost: Cost, broken: int) -> Finding:
        doubt = self.doubt(cost, broken) if found.status == "PASS" else ""
        return replace(found, status="WARN", text=f"{found.text}; {doubt}") if doubt else found
