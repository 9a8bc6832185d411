"""Configs in Python: where two differ, and changed copies of one."""

import json

import pytest
import yaml

from robust_nas import config_diff, load_config
from robust_nas.attacks import ThreatModel
from robust_nas.config import to_yaml
from robust_nas.errors import ConfigError
from robust_nas.studies.config import load_study

CHANGES = {
    "seed": [0, 3],
    "training.epochs": [14, 2],
    "training.loss.name": ["pgd-at", "mart"],
    "training.loss.beta": ["(not there)", 5.0],
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return the name of a config file in the current folder that differs from the quickstart."""
    monkeypatch.chdir(tmp_path)
    tree = {"base": "quickstart", "seed": 3, "training": {"epochs": 2, "validate_from": 0, "loss": "mart"}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    return "mine.yaml"


def test_a_difference_has_the_values_of_both_after_all_is_filled_in(own):
    assert config_diff("quickstart", own) == {**CHANGES, "training.validate_from": [4, 0]}
    assert config_diff(own, own) == {}
    assert config_diff(load_config("quickstart"), load_config(own)) == config_diff("quickstart", own)


def test_a_run_folder_is_read_as_it_is_stored(own, tmp_path):
    for name in ("config.yaml", "recipe.yaml"):  # the second one has everything
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_text(to_yaml(load_config(own, ["name=run"])))
        assert config_diff(own, "run") == {"name": ["quickstart", "run"]}
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty: is no run"):
        config_diff(own, "empty")
    with pytest.raises(ConfigError, match="did you mean 'quickstart'"):
        config_diff(own, "quikstart")


def test_the_command_shows_the_same(own, call):
    shown = call("config", "diff", "quickstart", own)
    assert shown.code == 0
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in shown.out.splitlines()]
    for key, values in CHANGES.items():
        assert [key, *map(str, values)] in cells
    found = json.loads(call("config", "diff", "quickstart", own, "--json").out)
    assert {key: [value["a"], value["b"]] for key, value in found.items()} == config_diff("quickstart", own)
    assert "do not differ" in call("config", "diff", own, own).out
    assert call("config", "diff", own, "nowhere").code == 2


def test_a_changed_copy_is_what_the_same_changes_to_the_file_give():
    config = load_config("quickstart")
    found = config.with_("training.loss.name=mart", "threat_model.eps=4/255", seed=3)
    assert found == load_config("quickstart", ["training.loss.name=mart", "threat_model.eps=4/255", "seed=3"])
    assert (config.seed, config.training.loss.label) == (0, "pgd-at")
    assert found.training.validation_attack.eps == 4 / 255
    assert config.with_() == config


def test_keys_of_a_changed_copy_are_merged_and_may_be_options():
    config = load_config("quickstart")
    found = config.with_(evaluation={"images": 9}, training={"loss": {"name": "mart"}, "epochs": 20})
    assert (found.evaluation.images, found.evaluation.suite) == (9, "cascade")
    assert (found.training.epochs, found.training.loss.attack) == (20, config.training.loss.attack)
    given = ThreatModel(norm="linf", eps=0.05)
    assert config.with_(threat_model=given).evaluation.threat_model == given
    listed = config.with_(evaluation={"attacks": [{"attack": {"name": "fgsm"}}]})
    assert (listed.evaluation.suite, len(listed.evaluation.attacks)) == (None, 1)


@pytest.mark.parametrize(
    ("overrides", "keys", "message"),
    [
        ((), {"sede": 3}, r"RunConfig.with_: sede: unknown key 'sede'; did you mean 'seed'"),
        ((), {"seed": -1}, "RunConfig.with_: seed: got -1"),
        (("training.loss.betta=3",), {}, "override 'training.loss.betta=3': .*unknown key"),
        (("seed",), {}, "write it as key.subkey=value"),
    ],
)
def test_a_wrong_change_is_refused_by_name(overrides, keys, message):
    with pytest.raises(ConfigError, match=message):
        load_config("quickstart").with_(*overrides, **keys)


def test_a_study_changes_too():
    study = load_study("zhu-mlp-init", size="ci")
    found = study.with_(seeds=2)
    assert found.seeds == (0, 1)
    assert found.with_(seeds=list(study.seeds)) == study
