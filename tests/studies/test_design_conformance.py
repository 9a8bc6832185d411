"""The contract that every design keeps: its options travel, its configurations repeat, and no mistake goes unnamed."""

import subprocess
import sys
from typing import Any

import pytest
from small_study import TREE, small_study

from robust_nas.config import check, to_dict, to_yaml_dict
from robust_nas.errors import ConfigError
from robust_nas.spaces import count, load_architecture
from robust_nas.studies.config import StudyConfig
from robust_nas.studies.design import DESIGNS, Configuration, Design, unite

BASE = load_architecture("wrn-10-1")
DIGITS = ((1, 8, 8), 10)
CASES: dict[str, dict[str, Any]] = {
    "grid": {"axes": {"widths.2": [32, 64], "training.weight_decay": [0.001]}},
    "iso": {"budget": "macs", "free": {"widths.2": {"from": 8, "to": 96, "step": 8}}, "tolerance": 0.9},
    "ratio": {"rule": "uniform", "budget": "macs"},
    "list": {"architectures": ["wrn-10-1", "wrn-10-2"]},
    "methods": {"methods": [{"label": "plain", "loss": "natural"}]},
}
every_design = pytest.mark.parametrize("name", CASES)


def made(name: str, **more: Any) -> Design:
    return DESIGNS.make(name, **CASES[name], **more)


def test_every_design_of_the_registry_is_in_the_suite() -> None:
    assert set(CASES) == set(DESIGNS.built_in)


@every_design
def test_its_configurations_are_possible_repeat_and_carry_its_arm(name: str) -> None:
    design = made(name, arm="mine")
    found = design.configurations(BASE, *DIGITS)
    assert found == design.configurations(BASE, *DIGITS)
    assert all(isinstance(each, Configuration) and each.arm == "mine" for each in found)
    assert all(count(each.architecture, *DIGITS).params > 0 for each in found)
    assert unite(found) == unite([*found, *found])


@every_design
def test_a_study_holds_it_and_its_resolved_config_means_the_same(name: str) -> None:
    config = small_study(base="wrn-10-1", space=[{"name": name, **CASES[name]}])
    assert config.space == (made(name),)
    assert check(StudyConfig, to_yaml_dict(config), "again") == config
    assert next(iter(to_dict(config.space[0]))) == "name"


@every_design
def test_a_wrong_key_is_named_at_its_place(name: str) -> None:
    tree = {**TREE, "space": [{"name": name, **CASES[name], "armm": "x"}]}
    with pytest.raises(ConfigError, match=r"study: space\.0\.armm: unknown key 'armm'; did you mean 'arm'"):
        check(StudyConfig, tree, "study")


def test_designs_and_rules_are_known_without_torch_and_scipy() -> None:
    code = (
        "import sys\n"
        "from robust_nas.studies.design import DESIGNS\n"
        "from robust_nas.studies.rules import RULES\n"
        "for registry in (DESIGNS, RULES):\n"
        "    for name in registry.built_in:\n"
        "        registry.get(name)\n"
        "print([name for name in ('torch', 'scipy', 'statsmodels') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
