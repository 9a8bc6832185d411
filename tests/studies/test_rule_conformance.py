"""The contract that every rule keeps: a complete verdict that repeats, and a reason where it cannot apply."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from simulated_studies import study
from small_study import small_study

from robust_nas.config import check, to_dict
from robust_nas.errors import StudyError
from robust_nas.statistics import Measurements
from robust_nas.studies.config import StudyConfig
from robust_nas.studies.rules import RULES, Evidence, RuleVerdict, verdicts

SHARES = np.linspace(0.5, 0.9, 6)
STAGES = {
    **{f"{key}.{stage}": [2] * 6 for key in ("depths", "widths") for stage in (0, 1)},
    "widths.2": [4, 3, 2, 1, 4, 4],
    "depths.2": [2, 2, 2, 2, 1, 2],
}
BUDGETS = {"params": [10, 20, 10, 20, 4, 8], "macs": [10, 20, 5, 10, 10, 20]}
ARMS = ["huang"] * 2 + ["uniform-iso-params"] * 2 + ["uniform-iso-macs"] * 2
INITIALISED = {"initialisation": ["lecun"] * 3 + ["ntk"] * 3, "depth": [2, 4, 8] * 2}
FIXED = {"macs": [1] * 6, "params": [1, 2, 3, 4, 5, 6]}


def points(
    factors: dict[str, list[float]], arms: list[str] | None = None
) -> Callable[..., list[Measurements]]:
    """Configurations with these factors, all equally robust, and a sensitivity that varies over seeds."""

    def make(seeds: int = 3) -> list[Measurements]:
        found = study(np.full(6, 0.5), np.random.default_rng(0), factors, arms, seeds=seeds, images=200)
        return [
            replace(one, measures={"average_sensitivity": tuple(1.0 + place + np.arange(seeds))})
            for place, one in enumerate(found)
        ]

    return make


CASES: dict[str, Callable[..., list[Measurements]]] = {
    "last_stage": points(STAGES),
    "more_params": points(FIXED),
    "iso_optimum": points({**FIXED, "last_stage_macs_share": list(SHARES)}),
    "huang_ratio": points(BUDGETS, ARMS),
    "robustscaling": points({**FIXED, "r_d": list(SHARES)}),
    "wd_ratio": points({**FIXED, "wd_ratio": [8, 10, 12, 20, 30, 4]}),
    "zhu_init": points(INITIALISED),
}
every_rule = pytest.mark.parametrize("name", CASES)


def judged(name: str, found: list[Measurements]) -> list[RuleVerdict]:
    return verdicts([RULES.make(name)], Evidence(points=found, reference="p0", draws=200, margin=0.01))


def test_every_rule_of_the_registry_is_in_the_suite() -> None:
    assert set(CASES) == set(RULES.built_in)


@every_rule
def test_its_verdict_is_complete_and_repeats(name: str) -> None:
    rule, found = RULES.make(name), judged(name, CASES[name]())
    assert found == judged(name, CASES[name]())
    for verdict in found:
        tree = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
        assert tree["rule"] == rule.label == name
        assert tree["source"] == rule.source
        assert all(tree[key] for key in ("statement", "n", "held", "reason", "unit"))
        assert verdict.status in ("supported", "contradicted", "undecided")
        assert (verdict.effect is None) or np.isfinite(verdict.effect)
        assert "prove" not in verdict.reason


@every_rule
def test_one_seed_decides_nothing(name: str) -> None:
    assert {verdict.status for verdict in judged(name, CASES[name](seeds=1))} == {"undecided"}


@every_rule
def test_it_names_the_factor_or_the_metric_that_is_missing(name: str) -> None:
    rule = RULES.get(name)
    bare = [replace(point, factors={}) for point in CASES[name]()]
    with pytest.raises(StudyError, match=f"rule '{name}'"):
        judged(name, bare)
    for factor in rule.factors:
        short = [
            replace(
                point,
                factors={key: value for key, value in point.factors.items() if key.split(".")[0] != factor},
            )
            for point in CASES[name]()
        ]
        with pytest.raises(StudyError, match=f"rule '{name}' needs the factor '{factor}'"):
            judged(name, short)
    blind = [replace(point, outcomes={}, measures={"other": (1.0,) * 3}) for point in CASES[name]()]
    with pytest.raises(StudyError, match=f"rule '{name}' needs '{(rule.metrics or ('robust',))[0]}'"):
        judged(name, blind)


@every_rule
def test_a_config_names_it_by_its_name_alone(name: str) -> None:
    config = small_study(analysis={"rules": [name]})
    assert config.analysis.rules == (RULES.make(name),)
    assert to_dict(config)["analysis"]["rules"] == [name]
    assert check(StudyConfig, to_dict(config), "again") == config
    assert small_study(analysis={"rules": [{"name": name}]}) == config


@every_rule
def test_a_network_that_is_not_above_chance_makes_it_undecided(name: str) -> None:
    found = CASES[name]()
    evidence = Evidence(points=found, reference="p0", draws=200, margin=0.01)
    about = {one for verdict in verdicts([RULES.make(name)], evidence) for one in verdict.points}
    for one in about or {point.name for point in found}:
        lost = replace(evidence, at_chance={one: "clean accuracy 9.4 %"})
        judged = verdicts([RULES.make(name)], lost)
        reasons = [verdict.reason for verdict in judged if verdict.reason.endswith("clean accuracy 9.4 %")]
        assert reasons[0].startswith(f"{one} is not shown to be above chance")
