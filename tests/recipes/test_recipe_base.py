"""`base:` in a config file: only what differs from a recipe, or from another file, is written."""

from pathlib import Path

import pytest
import yaml
from cases import CONFIG

from robust_nas.config import to_yaml
from robust_nas.errors import CodeRefusedError, ConfigError
from robust_nas.workflows.attack_config import attack_config
from robust_nas.workflows.config import load_config, printed
from robust_nas.workflows.distill_config import distill_config

TWELVE = """\
base: quickstart
name: mine
seed: 3
threat_model: {eps: 4/255}
search: {epochs: 2, stage1_epochs: 1}
network: {channels: 4}
training:
  epochs: 2
  loss: trades
  validate_from: 0
compression: null
evaluation: {images: 16}
"""
PLUGIN = """
from robust_nas.training.losses.natural import Natural


class Mine(Natural):
    weight: float = 1.0
"""


def write(folder: Path, name: str, text: str | dict) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    return path


def test_twelve_lines_are_a_whole_config(tmp_path):
    found, base = load_config(write(tmp_path, "mine.yaml", TWELVE)), load_config("quickstart")
    assert (found.name, found.seed, found.network.cells, found.network.channels) == ("mine", 3, 4, 4)
    assert found.threat_model.norm == "linf"
    assert found.evaluation.threat_model.eps == 4 / 255
    assert found.search == base.search.model_copy(
        update={
            "epochs": 2,
            "stage1_epochs": 1,
            "attack": base.search.attack.model_copy(update={"eps": 4 / 255}),
        }
    )
    assert found.training.loss.label == "trades"
    assert (
        found.training.loss.attack.name == "pgd"
    )  # n-fgsm raises no KL divergence, so that TRADES refuses it
    assert found.compression is None
    assert found.training.ema == base.training.ema


def test_the_resolved_config_has_no_base_and_loads_again(tmp_path):
    found = load_config(write(tmp_path, "mine.yaml", TWELVE))
    for text in (printed(found), to_yaml(found)):
        assert "base:" not in text
        assert load_config(write(tmp_path, "again.yaml", text)) == found


def test_bases_are_chained_and_seen_from_the_file_that_names_them(tmp_path, monkeypatch):
    write(tmp_path / "team", "common.yaml", "base: quickstart\nseed: 7\nevaluation: {images: 64}\n")
    write(tmp_path / "team", "loss.yaml", "base: common.yaml\ntraining: {loss: mart}\n")
    own = write(tmp_path / "own", "mine.yaml", "base: ../team/loss.yaml\nname: mine\nseed: 8\n")
    monkeypatch.chdir(tmp_path / "own")
    found = load_config(own)
    assert (found.name, found.seed, found.evaluation.images) == ("mine", 8, 64)
    assert found.training.loss.label == "mart"
    assert load_config("mine.yaml", ["seed=9"]).seed == 9


def test_a_path_is_seen_from_the_file_that_has_it(tmp_path, monkeypatch):
    write(tmp_path / "team", "loss.py", PLUGIN)
    write(tmp_path / "team", "suite.yaml", "attacks: [{attack: {name: fgsm}}]\n")
    loss = {"name": "loss.py:Mine", "weight": 2.0}
    tree = {
        "base": "quickstart",
        "training": {"loss": loss},
        "evaluation": {"suite": "suite.yaml"},
        "data": {"path": "sets"},
    }
    write(tmp_path / "team", "common.yaml", tree)
    own = write(
        tmp_path / "own", "mine.yaml", {"base": "../team/common.yaml", "evaluation": {"surrogates": ["m"]}}
    )
    monkeypatch.chdir(tmp_path)
    found = load_config(own)
    assert found.training.loss.name == f"{tmp_path}/team/loss.py:Mine"
    assert found.training.loss.weight == 2
    assert found.evaluation.suite == str(tmp_path / "team/suite.yaml")
    assert found.data.path == str(tmp_path / "team/sets")
    assert found.evaluation.surrogates == (str(tmp_path / "own/m"),)


def test_a_list_of_attacks_takes_the_suite_of_the_base_away_and_the_other_way_round(tmp_path):
    attacks = "evaluation: {attacks: [{attack: {name: fgsm}}]}\n"
    listed = write(tmp_path, "listed.yaml", f"base: quickstart\n{attacks}")
    found = load_config(listed).evaluation
    assert (found.suite, [step.attack.label for step in found.attacks]) == (None, ["fgsm"])
    again = write(tmp_path, "again.yaml", "base: listed.yaml\nevaluation: {suite: cascade}\n")
    assert load_config(again).evaluation.attacks is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: 3\n", "base: got 3; a shipped recipe or a YAML file is needed"),
        ("base:\n", "base: got None; a shipped recipe"),
        ("base: quikstart\n", r"base: 'quikstart' is neither.*did you mean 'quickstart'"),
        ("base: nowhere.yaml\n", "base: .*nowhere.yaml' is neither a recipe"),
        ("base: mine.yaml\n", "based on this file itself: mine.yaml -> mine.yaml"),
        ("base: other.yaml\n", "other.yaml: base: .*based on this file itself: mine.yaml -> other.yaml -> mine.yaml"),
        ("base: run\n", "in the folder of a run"),
        ("base: run/recipe.yaml\n", "in the folder of a run"),
        ("base: quickstart\nspeed: 1\n", r"mine.yaml \(base: quickstart\): speed: unknown key 'speed'"),
        ("base: quickstart\ntraining: {loss: {name: mart, noise: 2}}\n", "unknown key 'noise'"),
    ],
)  # fmt: skip
def test_a_wrong_base_is_refused_by_name(tmp_path, monkeypatch, text, message):
    write(tmp_path, "other.yaml", "base: mine.yaml\n")
    write(tmp_path / "run", "recipe.yaml", CONFIG)
    write(tmp_path / "run", "environment.json", "{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, "mine.yaml", text))


def test_the_folder_of_a_run_cannot_take_code_from_a_base(tmp_path):
    write(tmp_path, "loss.py", PLUGIN)
    write(tmp_path, "common.yaml", {"base": "quickstart", "training": {"loss": f"{tmp_path}/loss.py:Mine"}})
    write(tmp_path / "run", "environment.json", "{}")
    write(tmp_path / "run", "recipe.yaml", f"base: {tmp_path}/common.yaml\nname: sent\n")
    with pytest.raises(CodeRefusedError):
        load_config(tmp_path / "run")


def test_other_files_of_configs_take_a_base_too(tmp_path):
    distilled = distill_config(write(tmp_path, "mine.yaml", TWELVE))
    assert (distilled.name, distilled.threat_model.eps) == ("mine", 4 / 255)
    common = {"name": "a", "data": {"name": "digits"}, "threat_model": {"eps": 0.1}, "method": {"epochs": 3}}
    write(tmp_path, "common.yaml", common)
    own = write(tmp_path, "attack.yaml", "base: common.yaml\nmethod: {batch_size: 8}\n")
    assert (attack_config(own).method.epochs, attack_config(own).method.batch_size) == (3, 8)
