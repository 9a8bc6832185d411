"""What the jobs refuse before they touch a folder, and what a resumed whole run makes again."""

import json
import shutil

import pytest
from cases import config

import robust_nas
from robust_nas.errors import CheckpointError, ConfigError, DataError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    robust_nas.run(config(), folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize("place", ["model", "."])
def test_an_evaluation_never_takes_the_place_of_its_model(run, place):
    with pytest.raises(ConfigError, match="holds the model"):
        robust_nas.run_evaluation(config(), run / "model", run / place, mode="overwrite")
    assert (run / "model" / "model.safetensors").is_file()


def test_a_training_that_cannot_be_leaves_the_old_model_alone(run):
    recipe = config("training.auxiliary_weight=0.4")
    architecture = robust_nas.load_architecture(run / "search")
    with pytest.raises(ConfigError, match="auxiliary head"):
        robust_nas.train(recipe, architecture, run / "model", mode="overwrite")
    assert (run / "model" / "model.safetensors").is_file()


def test_other_images_are_noticed_when_only_the_search_was_finished(run):
    shutil.rmtree(run / "model")
    for name in ("environment.json", "search/environment.json"):
        record = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps({**record, "dataset_checksum": "other"}))
    with pytest.raises(DataError, match="was started on other images"):
        robust_nas.run(config(), run, mode="resume")


@pytest.mark.parametrize(
    "lost", ["model/model.safetensors", "export/weights.pt", "export/network.py", "search/architecture.yaml"]
)
def test_a_lost_artifact_is_made_again(run, finished, lost):
    (run / lost).unlink()
    robust_nas.run(config(), run, mode="resume")
    assert (run / lost).read_bytes() == (finished / lost).read_bytes()


def test_a_model_is_evaluated_without_the_file_of_its_search_space(run, tmp_path):
    text = (run / "model" / "recipe.yaml").read_text().replace("name: dsara\n", "name: gone.yaml\n", 1)
    assert "gone.yaml" in text
    (run / "model" / "recipe.yaml").write_text(text)
    found = robust_nas.workflows.config.model_config(run / "model")
    assert robust_nas.run_evaluation(found, run / "model", tmp_path / "again")["robust"]["images"] == 20


def test_a_run_is_loaded_by_the_name_of_its_model(run):
    with pytest.raises(CheckpointError, match=r"did you mean .*model\?"):
        robust_nas.load_model(run)


def test_a_warning_of_an_attack_far_from_the_threat_model_is_kept_with_the_result(tmp_path):
    far = config("training.validation_attack.eps=0.3", "search.attack.norm=l2")
    doubts = [
        "search.attack attacks in l2 with eps 0.1, the evaluation in linf with 0.1; "
        "set search.attack.norm=linf unless that is meant",
        "training.validation_attack attacks with eps 0.3, the evaluation with 0.1; "
        "set training.validation_attack.eps=0.1 unless that is meant",
    ]
    found = robust_nas.run_search(far, tmp_path / "search")
    assert found.record["warnings"][:2] == doubts
    folder = robust_nas.train(far, found.architecture, tmp_path / "model")
    assert json.loads((folder / "result.json").read_text())["warnings"] == doubts
