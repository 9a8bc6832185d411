"""Recipes that older versions wrote: stored ones are read under the present names, also where nothing else is asked."""

from pathlib import Path

import pytest

from robust_nas.config import read_yaml
from robust_nas.studies.config import StudyConfig
from robust_nas.training import LOSSES
from robust_nas.training.losses import with_present_names
from robust_nas.workflows.compression_config import compression_config

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
MODELS = [
    path.parent
    for path in sorted(REFERENCE.rglob("config.yaml"))
    if "training" in read_yaml(path).get("config", {})
]


def test_losses_alone_are_renamed_and_attacks_keep_their_names():
    attack = {"name": "pgd", "loss": "ce"}
    tree = {
        "training": {"loss": {"name": "pgd", "attack": attack}},
        "steps": [{"loss": {"name": "trades"}}],
        "n": 1,
    }
    found = with_present_names(tree)
    assert found["training"]["loss"] == {"name": "pgd-at", "attack": attack}
    assert found == with_present_names(found)
    assert {key: found[key] for key in ("steps", "n")} == {key: tree[key] for key in ("steps", "n")}


def test_every_old_name_of_a_loss_leads_to_a_present_one():
    assert set(LOSSES.renamed.values()) <= set(LOSSES.names())
    assert not set(LOSSES.renamed) & set(LOSSES.names())


def test_there_are_old_model_folders_to_test_with():
    assert MODELS
    assert any(
        read_yaml(folder / "config.yaml")["config"]["training"]["loss"]["name"] == "pgd" for folder in MODELS
    )


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: str(folder.relative_to(REFERENCE)))
def test_the_recipe_of_an_old_model_folder_is_read(folder):
    assert compression_config(folder).training.loss.name in LOSSES.names()


@pytest.mark.parametrize("folder", sorted(REFERENCE.glob("study-*")), ids=lambda folder: folder.name)
def test_the_recipe_of_an_old_study_is_read(folder):
    tree = with_present_names(read_yaml(folder / "config.yaml"))
    assert StudyConfig.model_validate(tree).training.loss.name in LOSSES.names()
