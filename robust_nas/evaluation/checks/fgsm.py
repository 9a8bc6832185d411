"""Iterative attacks are at least as strong as a single step (Carlini et al., 2019). FAIL above 2 points."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks import FGSM
from robust_nas.evaluation.checks.survivors import SurvivorCheck
from robust_nas.evaluation.thresholds import BROKEN_BY_THE_WEAK

if TYPE_CHECKING:
    from robust_nas.attacks import Attack
    from robust_nas.evaluation.state import EvaluationState


class SingleStep(SurvivorCheck):
    """FGSM breaks no survivor."""

    title: ClassVar[str] = "iterative at least as strong as FGSM"
    worst: ClassVar[float] = BROKEN_BY_THE_WEAK
    name: Literal["fgsm"] = "fgsm"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether a single step of length eps is defined: in L1 it would leave the box in one pixel."""
        return state.threat_model.norm in FGSM.norms

    def attack(self, state: EvaluationState) -> Attack:
        """Return FGSM under the threat model."""
        return FGSM(**state.limits, eot=state.eot)

    def cost(self, state: EvaluationState) -> int:
        """Return one gradient, the candidate, and the judgement; the image itself is the start."""
        return 3 * state.eot + state.judging_passes

    def missed(self, state: EvaluationState) -> str:
        """Return the reason for a FAIL."""
        return "the iterative attacks are weaker than one step"

    def fine(self, state: EvaluationState) -> str:
        """Return the text of a PASS."""
        return "no survivor falls to a single step"
