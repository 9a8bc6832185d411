"""White-box attacks are at least as strong as the query attacks of the list (Carlini et al., 2019).

An attack that asks for scores alone, such as Square, is held against the attacks before it; one that asks for decisions
alone has a finding of its own (`listed_decisions.py`). PASS up to 0.2 points of the images (Croce and Hein, 2020), FAIL
above 5 points (our choice).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.checks.square import TITLE
from robust_nas.evaluation.cost import Cost
from robust_nas.evaluation.thresholds import BROKEN, SQUARE_GAIN

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status


class ListedQueries(SanityCheck):
    """No query attack of the list broke what the attacks before it had not."""

    title: ClassVar[str] = TITLE
    allowed: ClassVar[str] = "at most 0.2 points"
    free: ClassVar[bool] = True
    decisions: ClassVar[bool] = (
        False  # whether it looks at attacks that see decisions alone, or at the others
    )
    name: Literal["listed-queries"] = "listed-queries"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether the list has such a query attack."""
        return state.asks_for(decisions=self.decisions)

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return one finding for each query attack of the list."""
        found = []
        others = False
        for row in state.rows:
            if row.attack.guided_by != "queries":
                others |= row.attack.guided_by in ("gradient", "surrogates")
            elif (row.attack.access == "decision") != self.decisions:
                continue
            elif not others:
                text = f"no gradient attack came before {row.label} in the list"
                found.append(self.finding("NOT RUN", text, allowed="a gradient attack before it"))
            else:
                drop = row.broken / row.images
                status: Status = "PASS" if drop <= SQUARE_GAIN else "FAIL" if drop > BROKEN else "WARN"
                text = f"{row.label} broke {row.broken} images that the attacks before it had not"
                text += ": the gradients mislead" if drop > SQUARE_GAIN else ""
                found.append(self.finding(status, text, row.broken, row.attacked))
        return found
