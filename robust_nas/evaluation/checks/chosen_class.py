"""A class chosen by chance is reached where any image may become any other: an attack that is blind cannot do that.

    t_i ~ uniform over the classes but y_i       PGD-20 on  z_t - max_{k != t} z_k,  over the whole box

Without a bound, noise alone leaves every image near chance: an accuracy of 0 is no proof that the gradient leads
anywhere. A blind attack reaches the chosen class about once in K times; of the way from there to 1, PASS from a half,
FAIL below a quarter. Our choice, by simulation (`scripts/simulate_findings.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks import PGD, Norm
from robust_nas.attacks.norms import diameter
from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost, Selection
from robust_nas.evaluation.seeds import generator_of
from robust_nas.evaluation.thresholds import BLIND, REACHED
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status

STEPS = 20


class ChosenClass(SanityCheck):
    """An attack without a bound leads images to classes of the check's choice."""

    title: ClassVar[str] = "a chosen class without a bound"
    allowed: ClassVar[str] = "at least half the way from chance to 1"
    selection: ClassVar[Selection] = "right"
    most: ClassVar[int] = 32
    share: ClassVar[float] = 0.3
    name: Literal["chosen-class"] = "chosen-class"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether the rule always answers: one that abstains may reject such images."""
        return not state.predictor.abstains

    def _attack(self, state: EvaluationState) -> PGD:
        # The whole box has the same points in every norm; in L1 steps over it are those of Linf.
        norm: Norm = "linf" if state.threat_model.norm == "l1" else state.threat_model.norm
        return PGD(norm=norm, eps=diameter(norm, state.shape), steps=STEPS, loss="margin", fold=False)

    def undefined(self, state: EvaluationState) -> str | None:
        """Return that there is nothing to attack, where the model has learned nothing."""
        return state.nothing_to_attack

    def cost(self, state: EvaluationState) -> int:
        """Return the passes of the attack, and of the verdict."""
        return (self._attack(state).passes.total + 1) * state.eot

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return the share of images that end in their chosen class."""
        from robust_nas.attacks import Predictor
        from robust_nas.evaluation.accuracy import judge
        from robust_nas.evaluation.one_class import OneClass

        attack = self._attack(state)
        generator = generator_of(state.device, state.seed, "finding", self.title)
        reached = 0
        for part in torch.split(indices, state.batch_size):
            x, y = state.batch(part)
            others = torch.randint(state.classes - 1, y.shape, generator=generator, device=y.device)
            problem = OneClass(state.predictor.module, others + (others >= y), state.eot)
            away = torch.zeros_like(y)
            result = attack.run(problem, x, away, generator)
            reached += int((~judge(Predictor(problem), result.images, away).right).sum())
            cost.passes += (result.forwards + result.backwards + len(x)) * state.eot
        share = reached / len(indices)
        chance = 1 / state.classes
        good, bad = (chance + part * (1 - chance) for part in (REACHED, BLIND))
        status: Status = "PASS" if share >= good else "FAIL" if share < bad else "WARN"
        text = f"{reached} of {len(indices)} images reach a class chosen by chance, without a bound"
        if status != "PASS":
            text += ": an attack that sees where it goes reaches nearly all; the gradients mislead"
        return [self.finding(status, text, share, len(indices), allowed=f"at least {good:.2g} reached")]
