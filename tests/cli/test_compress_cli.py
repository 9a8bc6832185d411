"""`robust-nas compress`: its table, its JSON, and its mistakes."""

import json

import pytest
from cases import config as run_config

import robust_nas
from robust_nas.config import to_dict, to_yaml
from robust_nas.export import latency
from robust_nas.workflows.config import EvaluationConfig

NETWORK = robust_nas.ResidualArchitecture(name="small", stem=4, depths=(1, 1), widths=(8, 8))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return robust_nas.train(run_config(), NETWORK, tmp_path_factory.mktemp("compress-cli") / "model")


def test_it_prints_the_original_beside_what_came_out(call, model, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0.001)
    monkeypatch.setattr(latency, "PACKAGES", ("none_such",))  # exports take most of the time
    found = call(
        "compress", model, "--macs", "0.7", "compression.gdws.alpha=null", "--out", tmp_path / "out", "-q"
    )
    assert found.code == 0, found.err
    assert "original" in found.out
    assert "gdws-0.7 *" in found.out
    assert "ms per call at batch 1 and 16" in found.out
    for text in ("val., PGD", "test, ", "as the attacks differ, validation less test is no loss"):
        assert text in found.out
    assert "fewest MACs within a loss of 1 points" in found.out or "none stays within a loss" in found.out
    assert (tmp_path / "out" / "figures" / "compression.png").is_file()
    assert str(tmp_path / "out" / "figures" / "compression.png") in found.out.replace("\n", "")
    again = call(
        "compress",
        model,
        "--macs",
        "0.7",
        "compression.gdws.alpha=null",
        "--out",
        tmp_path / "out",
        "--json",
        "--resume",
    )
    assert json.loads(again.out)["chosen"] == "gdws-0.7"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a model folder"),
        (["nowhere"], "nowhere: is no model folder"),
        (
            ["MODEL", "--method", "svd"],
            "got 'svd'; allowed: gdws, cstar, file.py:Class of your own",
        ),
        (["MODEL", "--macs", "2"], "compression.gdws.budgets"),
        (["MODEL", "--macs", "half"], "compression.gdws.budgets"),
        (["MODEL", "compression.gdws.bugdets=[0.5]"], "budgets"),
        (["MODEL", "--macs", "0.7,0.70000001"], "0.7 is listed more than once"),
        (["MODEL", "--ratio", "2,2.0"], "2 is listed more than once"),
        (["MODEL", "--macs", "0.5", "compression=null"], "compression"),
        (["MODEL", "--weights", "w.safetensors"], "--weights goes with --module"),
        (["--module", "net.py:build"], "name one, such as --recipe fashion"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_and_nothing_is_written(call, model, tmp_path, arguments, said):
    found = call("compress", *[str(model) if text == "MODEL" else text for text in arguments])
    assert found.code == 2
    assert said in " ".join(found.err.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_the_resolved_config_can_be_printed(call, model):
    found = call("compress", model, "--ratio", "3", "--print-config")
    assert found.code == 0
    assert "cstar:" in found.out
    assert "gdws: null" in found.out


def test_a_study_s_model_needs_a_recipe_and_the_message_says_it(call, model, tmp_path):
    folder = tmp_path / "trial"
    folder.mkdir()
    for name in ("architecture.yaml", "model.json", "model.safetensors"):
        (folder / name).write_bytes((model / name).read_bytes())
    tree = to_dict(EvaluationConfig.of(run_config()))
    (folder / "config.yaml").write_text(to_yaml({"config": tree, "trial": {}}))
    found = call("compress", folder)
    assert found.code == 2
    assert "config.yaml: holds no section training, as in the folder of a study's model" in found.err
    assert "--recipe quickstart" in found.err
    assert call("compress", folder, "--recipe", "quickstart", "--print-config").code == 0
