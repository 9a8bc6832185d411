"""Model folders that an earlier version wrote are evaluated, compressed and exported by the verbs of today."""

import shutil
from pathlib import Path

import pytest

import robust_nas
from robust_nas.config import read_yaml
from robust_nas.workflows.compression_config import compression_config
from robust_nas.workflows.config import model_config

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "old_model"
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


def test_the_recipe_of_an_old_model_is_read_by_its_names_of_today(folder):
    config = compression_config(folder, "cstar")
    assert config.training.loss.name == "pgd-at"
    assert config.training.validation_attack.name == "pgd"
