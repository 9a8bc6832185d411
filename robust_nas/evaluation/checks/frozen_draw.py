"""With one draw of its randomness frozen, a random model falls as a plain network does (Carlini et al., 2019).

Every forward pass takes the draws of one seed, so that no noise is in the gradient. PGD-20 on the margin (APGD in L1),
one pass per gradient, judged on the same draw:

    unbounded   where everything can be moved; PASS at 0 right, FAIL above 5 % and one image
    at eps      FAIL where this attack left more images right than all attacks did with the randomness on: right on one
                side alone, p < 0.05 by McNemar's exact test

A failure is no noise: the gradient itself misleads. Tests and level are our choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robust_nas.attacks import APGD, PGD
from robust_nas.attacks.norms import diameter
from robust_nas.evaluation.accuracy import judge
from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost, Selection
from robust_nas.evaluation.seeds import seed_of
from robust_nas.evaluation.thresholds import LEAST_IMAGES, MOVED, UNBOUNDED_LEFT, WEAKER
from robust_nas.layers.agreement import disagreement
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks import Predictor
    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status

STEPS = 20


class FrozenDraw(SanityCheck):
    """One draw of a random model, taken for a plain network, falls to a white-box attack."""

    title: ClassVar[str] = "succeeds on one frozen draw"
    allowed: ClassVar[str] = "0 % without a bound"
    selection: ClassVar[Selection] = "right"
    most: ClassVar[int] = 32
    name: Literal["frozen-draw"] = "frozen-draw"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether the model was declared random."""
        return state.predictor.random

    def undefined(self, state: EvaluationState) -> str | None:
        """Return that there is nothing to attack, where the model has learned nothing."""
        return state.nothing_to_attack

    def _attacks(self, state: EvaluationState) -> list[PGD | APGD]:
        threat = state.threat_model
        method: Any = PGD if threat.norm in PGD.norms else APGD
        budgets = (threat.eps, diameter(threat.norm, state.shape))
        return [method(norm=threat.norm, eps=eps, steps=STEPS, loss="margin", fold=False) for eps in budgets]

    def cost(self, state: EvaluationState) -> int:
        """Return the passes of both attacks with their judgements, and of two clean ones."""
        return 2 + sum(attack.passes.total + 1 for attack in self._attacks(state))

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return the share that an unbounded attack on the frozen draw leaves right."""
        from robust_nas.evaluation.frozen import frozen
        from robust_nas.evaluation.posterior_mean import paired

        draw = frozen(state.predictor, seed_of(state.seed, self.title))
        clean, again = (_clean(state, draw, indices, cost) for _ in range(2))
        if disagreement(clean[0], again[0]) > MOVED:
            text = "the draw cannot be frozen: the model does not draw from torch's global generators"
            return [self.finding("NOT RUN", text, images=len(indices))]
        asked = min(LEAST_IMAGES, len(indices))
        indices = indices[clean[1]]
        if len(indices) < asked:
            text = (
                f"the frozen draw gets {len(indices)} images right as they are; at least {asked} are needed"
            )
            return [self.finding("NOT RUN", text, images=len(indices))]
        at_eps, unbounded = (
            state.attempt(attack, indices, cost, f"{self.title} {attack.eps}", on=draw).right
            for attack in self._attacks(state)
        )
        count, left = len(indices), float(unbounded.float().mean())
        found = paired(at_eps, state.right[indices])
        misled = found["only_random"] > found["only_mean"] and found["p"] < WEAKER
        status: Status = "PASS" if left == 0 else "FAIL" if left > max(1 / count, UNBOUNDED_LEFT) else "WARN"
        with_noise = 100 * float(state.right[indices].float().mean())
        text = (
            f"of one draw, frozen, {100 * left:.1f} % are right without a bound and "
            f"{100 * float(at_eps.float().mean()):.1f} % at eps, of the random model {with_noise:.1f} %"
        )
        if status != "PASS" or misled:
            text += ": the gradient of a single draw misleads, whatever the others do"
        return [self.finding("FAIL" if misled else status, text, left, count)]


def _clean(state: EvaluationState, draw: Predictor, indices: Tensor, cost: Cost) -> tuple[Tensor, Tensor]:
    """Return logits `[n, K]` of images as they are, and which are right, batched as an attempt is."""
    parts = []
    for part in torch.split(indices, state.batch_size):
        x, y = state.batch(part)
        parts.append(judge(draw, x, y))
        cost.passes += len(x)
    return torch.cat([part.logits.cpu() for part in parts]), torch.cat([part.right.cpu() for part in parts])
