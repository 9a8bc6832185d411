"""The protocol: attack suites, the worst case per example, findings, and a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robust_nas.attacks import ThreatModel
from robust_nas.evaluation.intervals import wilson
from robust_nas.evaluation.journal import Journal
from robust_nas.evaluation.options import (
    AutoAttack,
    Deployed,
    EvaluationOptions,
    Step,
    suite_names,
)
from robust_nas.evaluation.report import Evaluation, Finding, Row, Score, Verdict, bars

if TYPE_CHECKING:
    from robust_nas.evaluation.protocol import evaluate, follow_protocol

__all__ = [
    "AutoAttack",
    "Deployed",
    "Evaluation",
    "EvaluationOptions",
    "Finding",
    "Journal",
    "Row",
    "Score",
    "Step",
    "ThreatModel",
    "Verdict",
    "bars",
    "evaluate",
    "follow_protocol",
    "suite_names",
    "wilson",
]


def __getattr__(name: str) -> Any:
    """Resolves what needs torch on first use."""
    if name in ("evaluate", "follow_protocol"):
        from robust_nas.evaluation import protocol

        return getattr(protocol, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
