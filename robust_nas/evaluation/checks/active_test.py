"""The active test (Zimmermann, Brendel, Tramer, Carlini, 2022): a planted adversarial example must be found.

An attack that does not find one where there is one (`evaluation/planted.py`) cannot be believed where it finds none
elsewhere. PASS from 90 % found, FAIL below 70 % of at least eight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks import APGD
from robust_nas.evaluation.accuracy import judge
from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost, Selection
from robust_nas.evaluation.seeds import generator_of
from robust_nas.evaluation.thresholds import PLANTED_FEW, PLANTED_FOUND, PLANTED_MISSED
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks import Attack
    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status

STEPS = 50


class ActiveTest(SanityCheck):
    """The list's strongest untargeted attack (APGD-CE where it has none) finds planted adversarial examples."""

    title: ClassVar[str] = "active test"
    allowed: ClassVar[str] = "at least 0.9 found"
    selection: ClassVar[Selection] = "right"
    most: ClassVar[int] = 24
    share: ClassVar[float] = 0.5
    name: Literal["active-test"] = "active-test"

    def _attack(self, state: EvaluationState) -> tuple[Attack, int]:
        """Return one short run on the two-class problem, and the passes of the model in each pass."""
        attack = state.strongest or APGD(**state.limits, eot=state.eot)
        return attack.shortened(STEPS).model_copy(update={"fold": False, "eot": 1}), attack.eot

    def cost(self, state: EvaluationState) -> int:
        """Return the passes of planting, of the attack, and of the verdict."""
        from robust_nas.evaluation.planted import INNER, RANDOM

        attack, passes = self._attack(state)
        return (8 + INNER + RANDOM + 2 * attack.passes.backward) * passes

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return the share of planted examples that the attack finds."""
        from robust_nas.attacks import Predictor
        from robust_nas.evaluation.planted import INNER, KNOWN, RANDOM, Planted, plant

        attack, passes = self._attack(state)
        x, _ = state.batch(indices)
        problem = Planted(state.predictor.module, passes)
        generator = generator_of(state.device, state.seed, "finding", self.title)
        threat = state.threat_model
        valid, chance = plant(problem, x, threat.eps, threat.norm, generator)
        cost.passes += len(x) * (1 + INNER + 1 + KNOWN + RANDOM) * passes
        if not valid.any():
            text = "no example could be planted: the logits do not move within the ball, or they are random"
            return [self.finding("WARN", text, images=len(x))]
        labels = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        result = attack.run(problem, x, labels, generator)
        found = ~judge(Predictor(problem), result.images, labels).right
        cost.passes += (result.forwards + result.backwards + len(x)) * passes
        rate, count = float(found[valid].float().mean()), int(valid.sum())
        status: Status = "PASS" if rate >= PLANTED_FOUND else "FAIL"
        if status == "FAIL" and (rate >= PLANTED_MISSED or count < PLANTED_FEW):
            status = "WARN"
        text = (
            f"{attack.label} found {int(found[valid].sum())} of {count} planted adversarial examples "
            f"(a random point of the boundary is one in {100 * chance:.1f} % of tries)"
        )
        text += "" if status == "PASS" else ": the attack does not work on this model"
        return [self.finding(status, text, rate, count)]
