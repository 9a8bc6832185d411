"""No attack passed by an adversarial example that it had: silent success (Pintor et al., 2022).

FAIL above 5 % of the images that were right as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost
from robust_nas.evaluation.thresholds import PASSED_BY

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status


class SilentSuccess(SanityCheck):
    """No image that some iterate fooled is counted as right."""

    title: ClassVar[str] = "silent success"
    allowed: ClassVar[str] = "0 images"
    free: ClassVar[bool] = True
    name: Literal["silent-success"] = "silent-success"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether any attack has a trace."""
        return bool(state.traces)

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return how many images were fooled on the way and given back as right."""
        passed_by: set[int] = set()
        for record in state.traces:
            if state.predictor.random and record.attack.returns_best:
                continue  # the result had fooled as many draws; fresh ones decide otherwise
            lost = record.ever_wrong & state.right[record.indices]
            passed_by |= set(record.indices[lost].tolist())
        tested = int(state.clean_right.sum())
        count = len(passed_by)
        status: Status = "PASS" if not count else "FAIL" if count > PASSED_BY * tested else "WARN"
        text = (
            f"{count} images were fooled on the way and given back as right; use keep: best"
            if count
            else "no attack passed by an adversarial example that it had"
        )
        return [self.finding(status, text, count, tested)]
