"""The protocol of rules: a rule is judged on the evidence of a study as supported, contradicted or undecided.

A new rule is a subclass with `statement`, `source` and `judge`, in a file of its own, and a line in `RULES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from robust_nas.registry import Method
from robust_nas.statistics import Contrast, Interval, Measurements, Optimum
from robust_nas.studies.rules.evidence import Evidence, Status


@dataclass(frozen=True, kw_only=True)
class RuleVerdict:
    """The verdict of a study on a rule. It never proves one.

    `effect` and `interval` are in `unit`: a share 0..1 of images where it is `share`.
    `held` says which budgets are equal and which are not. `comparisons` are exploratory contrasts, corrected by Holm
    among themselves; `optimum` is the one that the rule looked for. `points` names the configurations that the verdict
    is about; empty: all of the study. A verdict about one that is not above chance is undecided.
    """

    rule: str
    statement: str
    status: Status
    effect: float | None = None
    interval: Interval | None = None
    unit: str = "share"
    n: str
    held: str
    reason: str
    source: str
    comparisons: tuple[Contrast, ...] = ()
    optimum: Optimum | None = None
    points: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `analysis.json` holds them; `comparisons` go to its contrasts."""
        return {
            "rule": self.rule,
            "statement": self.statement,
            "status": self.status,
            "effect": self.effect,
            "interval": None if self.interval is None else list(self.interval),
            "unit": self.unit,
            "n": self.n,
            "held": self.held,
            "reason": self.reason,
            "source": self.source,
        }


class Rule(Method):
    """Base of all rules.

    `metrics` are measures that the rule needs, and instead of the response where there are any; `factors` are what
    configurations must know, such as `params`, `r_d`, or `depths` for `depths.0`, `depths.1`, ....
    """

    statement: ClassVar[str] = ""
    source: ClassVar[str] = ""
    metrics: ClassVar[tuple[str, ...]] = ()
    factors: ClassVar[tuple[str, ...]] = ()

    @property
    def label(self) -> str:
        """Return the name in reports: that of the config, without the file of a user's own rule."""
        return self.name.rpartition(":")[2] or type(self).__name__

    def judge(self, evidence: Evidence) -> list[RuleVerdict]:
        """Return the verdicts, such as one per budget: the algorithm. Raises `StudyError` where it cannot apply."""
        raise NotImplementedError(f"{type(self).__name__} judges nothing")

    def verdict(
        self,
        *,
        status: Status,
        n: str,
        held: str,
        reason: str,
        about: Sequence[Measurements] = (),
        **more: Any,
    ) -> RuleVerdict:
        """Return a verdict on this rule `about` some configurations, or about all of the study without any.

        Label, statement and source are the rule's, unless `more` has others.
        """
        words = {"rule": self.label, "statement": self.statement, "source": self.source, **more}
        points = tuple(point.name for point in about)
        return RuleVerdict(status=status, n=n, held=held, reason=reason, points=points, **words)


def verdicts(rules: Sequence[Rule], evidence: Evidence) -> list[RuleVerdict]:
    """Return the verdicts of the rules, in order; undecided where they are about configurations not above chance.

    Raises `StudyError` where a rule cannot apply to these configurations, naming the metric or factor that it lacks.
    """
    found: list[RuleVerdict] = []
    for rule in rules:
        for key in rule.metrics or (evidence.key,):
            evidence.refuse_unmeasured(rule.label, key)
        for factor in rule.factors:
            evidence.refuse_unknown(rule.label, factor)
        found += [_if_above_chance(verdict, evidence) for verdict in rule.judge(evidence)]
    return found


def _if_above_chance(verdict: RuleVerdict, evidence: Evidence) -> RuleVerdict:
    reason = evidence.not_above_chance(verdict.points)
    return verdict if reason is None else replace(verdict, status="undecided", reason=reason)
