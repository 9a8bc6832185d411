"""Rules of the literature, judged on a finished study: one file a rule. `RULES` knows them by name."""

from robust_nas.registry import Registry
from robust_nas.studies.rules.evidence import (
    Evidence,
    Status,
    count_cases,
    format_evidence,
    not_above_chance,
    ratios,
    verdict_of,
)
from robust_nas.studies.rules.rule import Rule, RuleVerdict, verdicts

RULES = Registry(
    "rule",
    Rule,
    "robust_nas.studies.rules",
    {
        "last_stage": "last_stage:LastStage",
        "more_params": "more_params:MoreParams",
        "iso_optimum": "iso_optimum:IsoOptimum",
        "huang_ratio": "huang_ratio:HuangRatio",
        "robustscaling": "robustscaling:RobustScaling",
        "wd_ratio": "wd_ratio:WDRatio",
        "zhu_init": "zhu_init:ZhuInit",
    },
    group="robust_nas.rules",
)

__all__ = [
    "RULES",
    "Evidence",
    "Rule",
    "RuleVerdict",
    "Status",
    "count_cases",
    "format_evidence",
    "not_above_chance",
    "ratios",
    "verdict_of",
    "verdicts",
]
