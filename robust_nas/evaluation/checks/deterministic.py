"""The forward pass is deterministic, or declared random: several passes of the same images (Croce and Hein, 2020).

    moved = disagreement(f_1(x), f_i(x)), i = 2..5, relative to what decides (`layers/agreement.py`); PASS up to 1e-4

Five passes, as in AutoAttack's own check: two miss half of the coins. A model that is not declared random is also asked
once while a gradient is wanted, and compared with its answers at the start of the evaluation (up to 1e-3: they were
given in another batch).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.accuracy import judge
from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost
from robust_nas.evaluation.input_gradient import input_gradient
from robust_nas.evaluation.seeds import seed_of
from robust_nas.evaluation.thresholds import MOVED, MOVED_IN_ANOTHER_BATCH
from robust_nas.layers.agreement import disagreement

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status

PASSES = 5
VARY = "outputs vary from pass to pass; declare it (deployed.samples), so that it is attacked through its randomness"
OF_GRADIENTS = (
    "outputs are others where a gradient is asked for; the attacks see another model than the images meet"
)
SINCE = "outputs are others than at the start of the evaluation; the model keeps a state, or looks at the whole batch"


class Deterministic(SanityCheck):
    """All passes give the same outputs, or the model was declared random."""

    title: ClassVar[str] = "deterministic forward"
    allowed: ClassVar[str] = "at most 1e-4"
    name: Literal["deterministic"] = "deterministic"

    def cost(self, state: EvaluationState) -> int:
        """Return the passes, with the one that wants a gradient."""
        return PASSES + 1

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return how far the outputs of two passes differ."""
        x, y = state.batch(indices)
        single = type(state.predictor)(state.predictor.module, abstains=state.predictor.abstains)
        seeds = [seed_of(state.seed, "deterministic", number) for number in range(PASSES)]
        first, *others = (judge(single, x, y, seed=seed).logits for seed in seeds)
        cost.passes += PASSES * len(x)
        moved, seen = max(disagreement(first, other) for other in others), VARY
        declared = state.predictor.random
        if not declared and moved <= MOVED:
            with_gradient, _, _ = input_gradient(state, x, y, (), cost)
            moved, seen = disagreement(_as_attacked(state, first, y), with_gradient), OF_GRADIENTS
        if not declared and moved <= MOVED:
            moved, seen = disagreement(state.clean_logits[indices].to(first.device), first), SINCE
            moved = moved if moved > MOVED_IN_ANOTHER_BATCH else 0.0
        varies = moved > MOVED
        text = f"{PASSES} passes gave the same outputs"
        if varies:
            text = seen.partition(";")[0] + ", as declared" if declared else seen
        elif declared:
            text = f"declared random, but {PASSES} passes gave the same outputs"
        status: Status = "PASS" if varies == declared else "WARN" if declared else "FAIL"
        allowed = "declared random" if declared else None
        value = moved if moved < float("inf") else None
        return [self.finding(status, text, value, len(x), allowed=allowed)]


def _as_attacked(state: EvaluationState, logits: Tensor, y: Tensor) -> Tensor:
    from robust_nas.attacks.predictor import merged

    return merged(logits, y) if state.predictor.abstains else logits
