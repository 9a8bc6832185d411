"""Twice the steps and twice the starts change nothing (Carlini et al., 2019). FAIL above 5 points."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks import APGD
from robust_nas.evaluation.checks.survivors import SurvivorCheck

if TYPE_CHECKING:
    from robust_nas.attacks import Attack
    from robust_nas.evaluation.state import EvaluationState


class MoreEffort(SurvivorCheck):
    """The list's strongest untargeted attack with double effort breaks no survivor; APGD-CE where it has none."""

    title: ClassVar[str] = "doubling steps and restarts changes nothing"
    most: ClassVar[int] = 32  # it is the dearest check
    share: ClassVar[float] = 0.5
    name: Literal["more-effort"] = "more-effort"

    def _single(self, state: EvaluationState) -> Attack:
        return state.strongest or APGD(**state.limits, eot=state.eot)

    def attack(self, state: EvaluationState) -> Attack:
        """Return the attack with double effort."""
        return self._single(state).doubled()

    def missed(self, state: EvaluationState) -> str:
        """Return the reason for a FAIL."""
        return f"{self._single(state).label} had not converged"

    def fine(self, state: EvaluationState) -> str:
        """Return the text of a PASS."""
        return f"{self._single(state).label} with {self.attack(state).effort} breaks no survivor"
