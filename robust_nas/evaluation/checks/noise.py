"""White-box attacks are at least as strong as random noise (Carlini et al., 2019). FAIL above 2 points."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks import Noise
from robust_nas.config import Count
from robust_nas.evaluation.checks.survivors import SurvivorCheck
from robust_nas.evaluation.thresholds import BROKEN_BY_THE_WEAK

if TYPE_CHECKING:
    from robust_nas.attacks import Attack
    from robust_nas.evaluation.state import EvaluationState


class RandomNoise(SurvivorCheck):
    """The best of several draws of noise breaks no survivor."""

    title: ClassVar[str] = "white box at least as strong as noise"
    share: ClassVar[float] = 0.5
    worst: ClassVar[float] = BROKEN_BY_THE_WEAK
    name: Literal["noise"] = "noise"
    draws: Count = 10  # perturbations a survivor

    def attack(self, state: EvaluationState) -> Attack:
        """Return noise under the threat model."""
        return Noise(**state.limits, draws=self.draws, eot=state.eot)

    def missed(self, state: EvaluationState) -> str:
        """Return the reason for a FAIL."""
        return "random noise does what the attacks did not"

    def fine(self, state: EvaluationState) -> str:
        """Return the text of a PASS."""
        return "no survivor falls to random noise"
