"""The base of checks that attack the survivors of all attacks: what they break, the list had missed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from robust_nas.errors import AttackError
from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost, Selection
from robust_nas.evaluation.thresholds import BROKEN

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks import Attack
    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status


class SurvivorCheck(SanityCheck):
    """An attack on survivors. PASS where it breaks none, FAIL where it would lower the robust accuracy by `worst`.

    It breaks more than one then, and would do so to all survivors at its rate; WARN between.

    For a random model a FAIL is a WARN, and what fresh draws flip without any attack is taken off.
    """

    allowed: ClassVar[str] = "0 broken"
    selection: ClassVar[Selection] = "survivors"
    worst: ClassVar[float] = BROKEN  # of the images

    def attack(self, state: EvaluationState) -> Attack:
        """Return the attack."""
        raise NotImplementedError(f"{type(self).__name__} has no attack")

    def missed(self, state: EvaluationState) -> str:
        """Return what it means that a survivor was broken."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it means")

    def fine(self, state: EvaluationState) -> str:
        """Return what it means that none was."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it means")

    def undefined(self, state: EvaluationState) -> str | None:
        """Return why the attack is not defined for the model or the images, or None."""
        try:
            self.attack(state).refuse_undefined(state.classes, state.shape, state.predictor.abstains)
        except AttackError as error:
            return str(error)
        return None

    def cost(self, state: EvaluationState) -> int:
        """Return the passes of the attack and of the judgement."""
        attack = self.attack(state)
        return attack.passes.total * attack.eot + state.judging_passes

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return how many survivors the attack breaks."""
        attack = self.attack(state)
        judged = state.attempt(attack, indices, cost, self.title)
        count = max(0, int((~judged.right).sum()) - state.flips(indices, cost, self.title))
        fall = count / len(indices) * float(state.right.float().mean())
        status: Status = "PASS" if not count else "FAIL" if count > 1 and fall > self.worst else "WARN"
        if state.predictor.random and status == "FAIL":
            status = "WARN"  # fresh draws of hard images may flip by themselves
        text = self.fine(state)
        if count:
            text = f"{attack.label} broke {count} of {len(indices)} survivors: {self.missed(state)}"
        return [self.finding(status, text, count, len(indices))]
