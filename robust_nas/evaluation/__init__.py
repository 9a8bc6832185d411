"""The protocol: attack suites, the worst case per example, intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robust_nas.evaluation.intervals import wilson
from robust_nas.evaluation.options import AutoAttack, EvaluationOptions, Step, ThreatModel
from robust_nas.evaluation.report import Evaluation, Row, Score, bars

if TYPE_CHECKING:
    from robust_nas.evaluation.protocol import evaluate

__all__ = [
    "AutoAttack",
    "Evaluation",
    "EvaluationOptions",
    "Row",
    "Score",
    "Step",
    "ThreatModel",
    "bars",
    "evaluate",
    "wilson",
]


def __getattr__(name: str) -> Any:
    """Resolves what needs torch on first use."""
    if name == "evaluate":
        from robust_nas.evaluation.protocol import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
