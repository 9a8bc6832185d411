"""`robust-nas attack train`: its output for people and for machines, its config, and mistakes."""

import json

import pytest
import yaml
from cases import config

import robust_nas
from robust_nas.config import to_yaml

NETWORK = robust_nas.MLPArchitecture(name="mlp", depth=1, width=8)
SHORT = (
    *("method.epochs=1", "method.batch_size=32", "method.attacker_steps=1", "method.widths=[4, 4, 4]"),
    *("method.blocks=1", "report.images=6", "report.pgd_steps=1", "report.batch_size=2", "report.rounds=1"),
)


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    return robust_nas.train(config(), NETWORK, tmp_path_factory.mktemp("victim") / "model")


def test_it_trains_prints_and_is_shown_again(call, victim, tmp_path):
    done = call("attack", "train", victim, "--method", "ai-gan", *SHORT, "--out", tmp_path / "made")
    assert done.code == 0, done.err
    assert "targeted pgd-1" in done.out
    assert "no robust accuracy" in done.out
    assert str(tmp_path / "made") in done.out
    again = call("attack", "train", victim, *SHORT, "--out", tmp_path / "made", "--resume", "--json", "-q")
    assert again.code == 0, again.err
    record = json.loads(again.out)
    assert record["folder"] == str(tmp_path / "made")
    assert len(record["classes"]) == 10
    assert call("attack", "train", victim, *SHORT, "--out", tmp_path / "made").code == 2


def test_its_config_is_small_and_can_be_given_back(call, victim, tmp_path):
    printed = call("attack", "train", victim, *SHORT, "--print-config")
    tree = yaml.safe_load(printed.out)
    assert {"threat_model", "method", "report", "data"} < tree.keys()
    assert not {"training", "search", "evaluation"} & tree.keys()
    assert tree["threat_model"]["eps"] == 0.1
    (tmp_path / "mine.yaml").write_text(to_yaml(tree))
    again = call("attack", "train", victim, "--config", tmp_path / "mine.yaml", "--print-config")
    assert again.out == printed.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "advgan"), "--method: got 'advgan'; allowed: ai-gan"),
        (("method.epochs=0",), "method.epochs: got 0"),
        (("training.epochs=3",), "unknown key 'training'"),
        (("--resume", "--overwrite"), "give one of them"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(call, victim, tmp_path, arguments, message):
    done = call("attack", "train", victim, *arguments, "--out", tmp_path / "made")
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "made").exists()
