"""The forward pass is deterministic, or declared random: two passes of the same images (Croce and Hein, 2020).

moved = disagreement(f_1(x), f_2(x)), relative to what decides the answers (`layers/agreement.py`); PASS up to 1e-4
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.accuracy import judge
from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost
from robust_nas.evaluation.seeds import seed_of
from robust_nas.layers.agreement import disagreement

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status

MOVED = 1e-4


class Deterministic(SanityCheck):
    """Two passes give the same outputs, or the model was declared random."""

    title: ClassVar[str] = "deterministic forward"
    allowed: ClassVar[str] = "at most 1e-4"
    name: Literal["deterministic"] = "deterministic"

    def cost(self, state: EvaluationState) -> int:
        """Return two passes."""
        return 2

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return how far the outputs of two passes differ."""
        x, y = state.batch(indices)
        single = type(state.predictor)(state.predictor.module, abstains=state.predictor.abstains)
        seeds = (seed_of(state.seed, "deterministic", number) for number in (0, 1))
        first, second = (judge(single, x, y, seed=seed).logits for seed in seeds)
        cost.passes += 2 * len(x)
        moved = disagreement(first, second)
        varies, declared = moved > MOVED, state.predictor.random
        text = "two passes gave the same outputs"
        if varies:
            text = "outputs vary from pass to pass"
            text += (
                ", as declared"
                if declared
                else "; declare it (deployed.samples), so that it is attacked through its randomness"
            )
        elif declared:
            text = "declared random, but two passes gave the same outputs"
        status: Status = "PASS" if varies == declared else "WARN" if declared else "FAIL"
        allowed = "declared random" if declared else None
        value = moved if moved < float("inf") else None
        return [self.finding(status, text, value, len(x), allowed=allowed)]
