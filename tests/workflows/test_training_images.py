"""A model is judged on the images of its own dataset: others are refused, or meant and noted."""

import json
import shutil

import numpy as np
import pytest
from cases import CONFIG
from PIL import Image

import robust_nas
from robust_nas.config import apply_overrides, check, read_yaml, to_yaml
from robust_nas.errors import DataError
from robust_nas.export.metadata import metadata
from robust_nas.nets import ModelDescription, build_network, inference_state, read_model, save_model
from robust_nas.studies.config import PRESETS, load_study
from robust_nas.studies.run.runner import plan_study
from robust_nas.workflows.compression_config import compression_config
from robust_nas.workflows.config import RunConfig, load_config, model_config
from robust_nas.workflows.export import check_export
from robust_nas.workflows.training_images import names_data

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1,), widths=(4,))
FAST = ["evaluation.attacks=[{attack: {name: fgsm}}]", "evaluation.findings=none", "data.validation=0.25"]
OTHER = "was trained on other images than these of image-folder"


def images(root, seed):
    draw = np.random.default_rng(seed)
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (root / place).mkdir(parents=True)
        for number in range(4):
            pixels = draw.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / place / f"{number}.png")
    return root


def config(*overrides):
    return check(RunConfig, apply_overrides(CONFIG, overrides), "test")


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Two folders, each with another `set`, and in the first the model folder `m` of an earlier version."""
    first, second = tmp_path / "first", tmp_path / "second"
    images(first / "set", 1)
    images(second / "set", 2)
    monkeypatch.chdir(first)
    data = ["data.name=image-folder", "data.path=set", "data.limit=null"]
    dataset = robust_nas.load_dataset(config(*data).data)
    shape = {"input_shape": dataset.shape, "classes": 2, "mean": (0.0,), "std": (1.0,)}
    made = {"dataset": dataset.name, "dataset_checksum": dataset.checksum}
    save_model(
        first / "m",
        TINY,
        inference_state(build_network(TINY, **shape, seed=0)),
        ModelDescription(
            input_shape=dataset.shape, class_names=("a", "b"), mean=(0.0,), std=(1.0,), made_by=made
        ),
    )
    recipe = apply_overrides(CONFIG, [*data, *FAST, "training.validation_images=2"])
    (first / "m" / "recipe.yaml").write_text(to_yaml(recipe))
    monkeypatch.chdir(second)
    return first, second


def readers(model):
    """What reads data for a model that it did not train, by name; each takes `other_data`."""
    chosen = model_config(model)
    return {
        "evaluate": lambda **more: robust_nas.run_evaluation(chosen, model, **more),
        "compress": lambda **more: robust_nas.compress(compression_config(model), model, **more),
        "export": lambda: check_export(chosen, model, robust_nas.export_model(model)),
    }


@pytest.mark.parametrize("verb", ["evaluate", "compress", "export"])
def test_a_relative_path_of_an_earlier_version_that_meets_other_images_is_refused(places, verb):
    first, second = places
    with pytest.raises(DataError, match=OTHER):
        readers(first / "m")[verb]()
    assert sorted(path.name for path in second.iterdir()) == ["set"]
    assert not any((first / name).exists() for name in ("m/evaluation", "m/compressed"))


def test_images_that_are_meant_are_noted_in_the_verdict_and_in_an_export(places):
    model = places[0] / "m"
    tree = readers(model)["evaluate"](other_data=True)
    (warning,) = tree["warnings"]
    assert OTHER in warning["text"]
    assert warning["text"] in tree["sentence"]
    assert metadata(read_model(model))["verdict"]["warnings"] == [warning["text"]]


def test_moved_images_are_known_by_their_checksum(places, monkeypatch):
    first, second = places
    shutil.move(first / "set", second / "moved")
    monkeypatch.chdir(first)
    with pytest.raises(DataError, match=r"first/set: no such folder or file; .* named by data.path=PATH"):
        readers(first / "m")["evaluate"]()
    tree = robust_nas.run_evaluation(model_config(first / "m", ["data.path=../second/moved"]), first / "m")
    assert tree["warnings"] == []


def test_the_record_of_a_folder_is_read_where_the_description_has_no_checksum(places):
    model = places[0] / "m"
    description = json.loads((model / "model.json").read_text())
    checksum = description["made_by"].pop("dataset_checksum")
    (model / "model.json").write_text(json.dumps(description))
    (model / "environment.json").write_text(json.dumps({"dataset_checksum": checksum}))
    with pytest.raises(DataError, match=OTHER):
        readers(model)["evaluate"]()


@pytest.mark.parametrize(
    ("override", "named"),
    [("data.path=x", True), ("data.name=x", True), ("data={name: x}", True), ("data.limit=9", False)],
)
def test_which_overrides_name_the_images(override, named):
    assert names_data([override]) is named


@pytest.mark.parametrize(
    ("written", "override", "place"),
    [
        ("set", [], "first/set"),  # next to the config
        ("set", ["data.path=set"], "second/set"),  # on the command line
        ("only", [], "second/only"),  # in the current folder alone, as earlier versions had it
        ("none", [], "first/none"),
    ],
)
def test_a_path_in_a_config_is_seen_from_it_and_is_absolute_when_resolved(places, written, override, place):
    first, second = places
    (second / "only").mkdir()
    path = first / "mine.yaml"
    path.write_text(to_yaml(apply_overrides(CONFIG, ["data.name=image-folder", f"data.path={written}"])))
    assert load_config(path, override).data.path == str(first.parent / place)
    assert load_config("../first/mine.yaml", override).data.path == str(first.parent / place)


def test_a_study_sees_the_paths_in_its_file_in_the_same_way(places):
    first, _ = places
    study = read_yaml(PRESETS / "zhu-mlp-init.yaml") | {"data": {"name": "image-folder", "path": "set"}}
    (first / "study.yaml").write_text(to_yaml(study))
    assert load_study(first / "study.yaml", size="ci").data.path == str(first / "set")
    here = load_study(first / "study.yaml", ["data.path=set"], size="ci")
    assert here.data.path == str(places[1] / "set")


def test_suites_and_code_next_to_a_config_are_its_own(places):
    first, _ = places
    for folder, attack in zip(places, ("fgsm", "pgd"), strict=True):
        (folder / "mine.yaml").write_text(f"attacks:\n- attack: {{name: {attack}}}\n")
        (folder / "code.py").write_text(
            "from typing import Literal\nfrom robust_nas.training.losses.natural import Natural\n\n\n"
            f"class Mine(Natural):\n    name: Literal['mine'] = 'mine'\n    of: str = '{folder.name}'\n"
        )
    tree = apply_overrides(CONFIG, ["evaluation.attacks=null", "evaluation.suite=mine.yaml"])
    tree["training"]["loss"] = "code.py:Mine"
    (first / "run.yaml").write_text(to_yaml(tree))
    own = load_config(first / "run.yaml")
    assert ([step.attack.name for step in own.evaluation.steps], own.training.loss.of) == (["fgsm"], "first")
    given = ["evaluation.suite=mine.yaml", "training.loss=code.py:Mine"]
    given = load_config(first / "run.yaml", given)
    assert ([step.attack.name for step in given.evaluation.steps], given.training.loss.of) == (
        ["pgd"],
        "second",
    )


def test_a_data_set_that_moved_is_the_same_for_every_job(tmp_path, monkeypatch):
    """A job is known by its images, not by their place."""
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "set", 1)
    keys = ["data.name=image-folder", "data.limit=null", "data.validation=0.25", *FAST[:2]]
    keys += ["search.batch_size=2", "training.batch_size=4"]
    old = config("data.path=set", *keys)
    folder = robust_nas.train(old, TINY, tmp_path / "m")
    found = robust_nas.run_evaluation(old, folder)
    kept = (folder / "model.safetensors").read_bytes()
    (folder / "result.json").unlink()
    (folder / "evaluation" / "result.json").unlink()
    shutil.move("set", "moved")
    monkeypatch.setenv("PLACE", str(tmp_path))
    for place in ("moved", "$PLACE/moved"):
        new = config(f"data.path={place}", *keys)
        robust_nas.train(new, TINY, folder, mode="resume")
        again = robust_nas.run_evaluation(new, folder, mode="resume")
        assert {**again, "seconds": 0} == {**found, "seconds": 0}
    assert (folder / "model.safetensors").read_bytes() == kept
    images(tmp_path / "other", 2)
    other = config("data.path=other", *keys)
    for finished in (True, False):
        if not finished:
            (folder / "result.json").unlink()
        with pytest.raises(DataError, match="was started on other images"):
            robust_nas.train(other, TINY, folder, mode="resume")
        with pytest.raises(DataError, match="other images"):
            robust_nas.run_evaluation(other, folder, mode="resume", other_data=True)


def test_a_trial_is_known_by_its_images_not_by_their_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ids = []
    for place in ("one", "two"):
        images(tmp_path / place, 1)
        keys = [
            "data.name=image-folder",
            f"data.path={place}",
            "data.validation=0.25",
            "training.batch_size=4",
        ]
        study = load_study("huang-width-last", keys, size="ci")
        plan, _ = plan_study(study)
        ids.append([trial.id for _, trial in plan.trials])
    assert ids[0] == ids[1]
