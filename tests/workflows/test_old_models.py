"""Model folders that an earlier version wrote are evaluated, compressed and exported by the verbs of today."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import robust_nas
from robust_nas.config import read_yaml
from robust_nas.export.metadata import metadata
from robust_nas.nets import read_model
from robust_nas.workflows.compression_config import compression_config
from robust_nas.workflows.config import model_config

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
OLD = FIXTURES / "old_model"
OLD_EVALUATION = FIXTURES / "old_evaluation"  # of the residual one, by the version that wrote both
SMALL = [
    "evaluation.suite=null",
    "evaluation.attacks=[{attack: {name: pgd, steps: 2}}]",
    "evaluation.images=16",
]


@pytest.fixture(params=["cells", "residual"])
def folder(request, tmp_path):
    shutil.copytree(OLD / request.param, tmp_path / "model")
    return tmp_path / "model"


def test_an_old_model_is_evaluated_and_exported_with_its_verdict(folder):
    assert read_yaml(folder / "config.yaml")["config"]["training"]["loss"]["name"] == "pgd"
    tree = robust_nas.run_evaluation(model_config(folder, SMALL), folder)
    assert tree["robust"]["images"] == 16
    assert (robust_nas.export_model(folder) / "network.py").is_file()
    assert "'verdict': None" not in (folder / "export" / "network.py").read_text()


@pytest.mark.parametrize("place", ["model/evaluation", "evaluation"])
@pytest.mark.parametrize("same", [True, False])
def test_the_verdict_of_an_old_evaluation_goes_with_the_weights_that_it_is_of(tmp_path, place, same):
    shutil.copytree(OLD / "residual", tmp_path / "model")
    shutil.copytree(OLD_EVALUATION, tmp_path / place)
    if not same:
        path = tmp_path / "model" / "model.safetensors"
        state = load_file(path)
        state["stem.weight"] += 1
        save_file(state, path, metadata={"format": "pt"})
    verdict = metadata(read_model(tmp_path / "model"))["verdict"]
    assert (verdict is not None) is same
    if same:
        assert (verdict["status"], verdict["images"]) == ("INCONCLUSIVE", 16)
        assert verdict["findings_version"] == 1


def test_the_recipe_of_an_old_model_is_read_by_its_names_of_today(folder):
    config = compression_config(folder, "cstar")
    assert config.training.loss.name == "pgd-at"
    assert config.training.validation_attack.name == "pgd"
