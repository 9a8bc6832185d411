"""Rules of the literature, judged on a finished study: supported, contradicted or undecided."""

from __future__ import annotations

from collections.abc import Sequence

from robust_nas.errors import StudyError
from robust_nas.studies.verdicts.followers import robustscaling, wd_ratio, zhu_init
from robust_nas.studies.verdicts.huang import huang_ratio, iso_optimum, last_stage, more_params
from robust_nas.studies.verdicts.verdict import Evidence, Rule, RuleVerdict

__all__ = ["RULES", "Evidence", "RuleVerdict", "verdicts"]

RULES: dict[str, Rule] = {
    "last_stage": last_stage,
    "more_params": more_params,
    "iso_optimum": iso_optimum,
    "huang_ratio": huang_ratio,
    "robustscaling": robustscaling,
    "wd_ratio": wd_ratio,
    "zhu_init": zhu_init,
}


def verdicts(rules: Sequence[str], evidence: Evidence) -> list[RuleVerdict]:
    """What the study says of each rule, in order; a rule may give one verdict per budget.

    Raises `StudyError` for an unknown rule, or one that cannot apply to these points at all.
    """
    unknown = [rule for rule in rules if rule not in RULES]
    if unknown:
        raise StudyError(f"rule {unknown[0]!r} is not known; allowed: {', '.join(RULES)}")
    return [verdict for rule in rules for verdict in RULES[rule](evidence)]
