"""The protocol: attack suites, the worst case per example, sanity checks, and a verdict."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from robust_nas.attacks import ThreatModel
from robust_nas.evaluation.accuracy import Correctness, LabelledImages, correctness, judge
from robust_nas.evaluation.checks import CHECKS, Cost, SanityCheck
from robust_nas.evaluation.inference_rule import InferenceRule
from robust_nas.evaluation.journal import Journal
from robust_nas.evaluation.options import EvaluationOptions, Step, suite_names
from robust_nas.evaluation.report import Evaluation
from robust_nas.evaluation.rows import Row, Score
from robust_nas.evaluation.verdict import Finding, Verdict

if TYPE_CHECKING:
    from robust_nas.attacks import AutoAttack
    from robust_nas.evaluation.protocol import evaluate, follow_protocol
    from robust_nas.evaluation.state import EvaluationState

_HOMES = {
    "AutoAttack": "robust_nas.attacks",
    "EvaluationState": "robust_nas.evaluation.state",
    "evaluate": "robust_nas.evaluation.protocol",
    "follow_protocol": "robust_nas.evaluation.protocol",
}

__all__ = [
    "CHECKS",
    "AutoAttack",
    "Correctness",
    "Cost",
    "Evaluation",
    "EvaluationOptions",
    "EvaluationState",
    "Finding",
    "InferenceRule",
    "Journal",
    "LabelledImages",
    "Row",
    "SanityCheck",
    "Score",
    "Step",
    "ThreatModel",
    "Verdict",
    "correctness",
    "evaluate",
    "follow_protocol",
    "judge",
    "suite_names",
]


def __getattr__(name: str) -> Any:
    """Resolve what needs torch, and what is another room's, on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
