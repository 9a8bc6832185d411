"""Accuracy against the budget: it never rises, reaches chance where all images can be alike, and 0 without a bound.

Eps 0, eps/2, eps, 2 eps, then grey and unbounded (Carlini et al., 2019), under PGD on the margin, which never
saturates: a confident model is not mistaken for a robust one. D pixels of an image.

    grey       0.5 in Linf, 0.5 sqrt(D) in L2, 0.5 D in L1: every image can become one and the same grey
    unbounded  1 in Linf, sqrt(D) in L2, D in L1

In L1, where PGD is not defined, by APGD.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robust_nas.attacks import APGD, PGD
from robust_nas.attacks.norms import diameter
from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost
from robust_nas.evaluation.thresholds import RISE, UNBOUNDED_LEFT

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status

GREY = 0.5
ALIKE = "at most chance where all images can be alike"
UNBOUNDED = "0 % without a bound"


class EpsCurve(SanityCheck):
    """Three findings on one curve."""

    title: ClassVar[str] = "accuracy falls with eps"
    allowed: ClassVar[str] = "never rises"
    share: ClassVar[float] = 0.6
    name: Literal["eps-curve"] = "eps-curve"

    def _attacks(self, state: EvaluationState) -> list[PGD | APGD]:
        threat = state.threat_model
        side = diameter(threat.norm, state.shape)
        grey = GREY * side
        small = [threat.eps * factor for factor in (0.5, 1, 2) if 0 < threat.eps * factor < grey]
        budgets = [*((eps, 10) for eps in small), (grey, 20), (side, 20)]
        method = PGD if threat.norm in PGD.norms else APGD
        return [
            method(norm=threat.norm, eps=eps, steps=steps, loss="margin", eot=state.eot)
            for eps, steps in budgets
        ]

    def undefined(self, state: EvaluationState) -> str | None:
        """Return that there is nothing to attack, where the model has learned nothing."""
        return state.nothing_to_attack

    def cost(self, state: EvaluationState) -> int:
        """Return the passes of all points of the curve."""
        attacks = self._attacks(state)
        return sum(attack.passes.total * attack.eot + state.judging_passes for attack in attacks)

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return the findings; the first one holds the points of the curve."""
        clean = state.clean_right[indices]
        points = [point(0.0, int(clean.sum()), len(indices), "none")]
        for attack in self._attacks(state):
            judged = state.attempt(attack, indices, cost, f"{self.title} {attack.eps}")
            points.append(point(attack.eps, int((judged.right & clean).sum()), len(indices), attack.label))
        found = self.judge(points, state.chance)
        # Where every image is the same grey, a rule that abstains may reject it, and be right.
        return [finding for finding in found if not (state.predictor.abstains and finding.name == ALIKE)]

    def judge(self, points: list[dict[str, Any]], chance: float) -> list[Finding]:
        """Return what the points of a curve say, the last two of which are grey and unbounded."""
        n = points[0]["images"]
        accuracies = [point["accuracy"] for point in points]
        rise = max(after - before for before, after in pairwise(accuracies))
        (at_grey, grey_eps, low), (unbounded, eps, _) = (
            (point["accuracy"], point["eps"], point["low"]) for point in points[-2:]
        )
        risen: Status = "PASS" if rise <= 0 else "FAIL" if rise > max(2 / n, RISE) else "WARN"
        text = "accuracy never rises with a larger budget"
        if rise > 0:
            text = f"accuracy rises by {100 * rise:.1f} points at a larger budget: the attack gets stuck"
        alike: Status = "PASS" if at_grey <= chance else "FAIL" if low > chance else "WARN"
        grey_text = f"{100 * at_grey:.1f} % right at eps {grey_eps:.4g}"
        if at_grey > chance:
            grey_text += ", where every image can become the same grey: the gradients mislead"
        free: Status = (
            "PASS" if unbounded == 0 else "FAIL" if unbounded > max(1 / n, UNBOUNDED_LEFT) else "WARN"
        )
        free_text = f"{100 * unbounded:.1f} % right without a bound"
        if unbounded != 0:
            free_text += ": an attack that may do anything must succeed; the gradients mislead"
        at_chance, at_nothing = f"at most {chance:.3g} at eps {grey_eps:.4g}", f"0 at eps {eps:.4g}"
        return [
            replace(self.finding(risen, text, max(rise, 0.0), n), curve=tuple(points)),
            replace(self.finding(alike, grey_text, at_grey, n, allowed=at_chance), name=ALIKE),
            replace(self.finding(free, free_text, unbounded, n, allowed=at_nothing), name=UNBOUNDED),
        ]


def point(eps: float, right: int, images: int, attack: str) -> dict[str, Any]:
    """Return a point of the curve, with Wilson's interval of its accuracy."""
    from robust_nas.statistics.proportions import wilson

    low, high = wilson(right, images)
    return {
        "eps": eps,
        "accuracy": right / images,
        "low": low,
        "high": high,
        "images": images,
        "attack": attack,
    }
