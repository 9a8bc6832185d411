"""White-box attacks are at least as strong as the decision-based attacks of the list (Carlini et al., 2019).

Thresholds are those of the other query attacks of the list (`listed_queries.py`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from robust_nas.evaluation.checks.decision_based import TITLE
from robust_nas.evaluation.checks.listed_queries import ListedQueries


class ListedDecisions(ListedQueries):
    """No decision-based attack of the list broke what the attacks before it had not."""

    title: ClassVar[str] = TITLE
    decisions: ClassVar[bool] = True
    name: Literal["listed-decisions"] = "listed-decisions"  # type: ignore[assignment]
