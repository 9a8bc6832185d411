"""Adversarial sets: made by `run_attack`, judged by `evaluate_set`, listed as the attack `saved`, and refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from cases import config

import robust_nas
from robust_nas.attacks import Saved, ThreatModel
from robust_nas.attacks.adversarial_set import read_set
from robust_nas.config_paths import seen_from_file
from robust_nas.errors import AttackError, ConfigError, DataError, RobustNASError, RunExistsError
from robust_nas.evaluation.inference_rule import InferenceRule
from robust_nas.nets import read_model
from robust_nas.workflows.attack_run import attack_of
from robust_nas.workflows.config import model_config

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=8, depths=(1, 1), widths=(8, 16))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    chosen = config("data.limit=400", "training.epochs=3", "evaluation.threat_model.eps=0.06")
    return robust_nas.train(chosen, TINY, tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture(scope="module")
def made(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "deep" / "pgd"
    return folder, robust_nas.run_attack("pgd", model, folder, options={"steps": 4}, images=24)


def test_what_a_run_saves(model, made):
    folder, record = made
    assert sorted(path.name for path in folder.iterdir() if path.suffix in (".npz", ".json")) == [
        "attack.json",
        "environment.json",
        "set.npz",
    ]
    assert json.loads((folder / "attack.json").read_text()) == record
    found = read_set(str(folder / "set.npz"))
    moved = np.abs(found.images.astype(float) - found.clean.astype(float)).max()
    assert 0.05 < moved <= 0.06 + 1e-6
    assert len(found) == record["images"] == 24
    assert found.meta["threat_model"] == {"norm": "linf", "eps": 0.06}
    assert found.meta["victim"] == read_model(model).digest
    assert record["robust"]["count"] + record["success"]["count"] == record["clean"]["count"]
    assert record["passes"] == {"forward": 6.0, "backward": 4.0}
    assert list(folder.parent.iterdir()) == [folder]  # nothing is left of the making


def test_the_same_run_is_the_same_file_and_nothing_is_overwritten(model, made, tmp_path):
    folder, _ = made
    robust_nas.run_attack("pgd", model, tmp_path / "again", options={"steps": 4}, images=24)
    assert (tmp_path / "again" / "set.npz").read_bytes() == (folder / "set.npz").read_bytes()
    before = (folder / "set.npz").stat().st_mtime_ns
    with pytest.raises(RunExistsError, match="exists already and is not overwritten"):
        robust_nas.run_attack("noise", model, folder)
    assert (folder / "set.npz").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"part": "trainn"}, "part: got 'trainn'; allowed: test, validation"),
        ({"images": 0}, "images: got 0; a number from 1 is needed"),
    ],
)
def test_what_is_no_part_or_number_of_images_is_refused(model, tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        robust_nas.run_attack("noise", model, tmp_path / "out", **keys)
    assert not (tmp_path / "out").exists()


def test_a_random_model_is_attacked_by_its_average_as_in_an_evaluation(model, tmp_path):
    record = robust_nas.run_attack(
        "pgd",
        model,
        tmp_path / "out",
        options={"steps": 1},
        images=4,
        overrides=["evaluation.deployed.samples=3"],
    )
    assert record["attack"]["eot"] == InferenceRule(samples=3).eot > 1


def test_a_set_is_known_to_be_the_models_own_or_another_ones(model, made, tmp_path):
    folder, record = made
    own = robust_nas.evaluate_set(model, folder / "set.npz", tmp_path / "judged")
    assert own["victim"] == "own"
    assert {key: own[key] for key in ("clean", "robust", "success", "distances")} == {
        key: record[key] for key in ("clean", "robust", "success", "distances")
    }
    assert json.loads((tmp_path / "judged" / "saved_set.json").read_text()) == own
    other = robust_nas.train(
        config("data.limit=200", "training.epochs=1", "seed=0"), TINY, tmp_path / "other"
    )
    assert robust_nas.evaluate_set(other, folder / "set.npz")["victim"] == "other"


def test_a_saved_set_in_a_list_breaks_what_it_broke(model, made, tmp_path):
    folder, record = made
    listed = f"evaluation.attacks=[{{attack: {{name: saved, file: {folder / 'set.npz'}}}}}]"
    changes = ["evaluation.suite=null", listed, "evaluation.images=24", "evaluation.findings=none"]
    tree = robust_nas.run_evaluation(model_config(model, changes), model, tmp_path / "out")
    assert tree["robust"]["attacks"] == ["saved-pgd"]
    assert tree["robust"]["correct"] == record["robust"]["count"]
    more = model_config(model, [*changes, "evaluation.images=25"])
    with pytest.raises(AttackError, match="does not hold 1 of 25 images"):
        robust_nas.run_evaluation(more, model, tmp_path / "more")
    smaller = model_config(model, [*changes, "evaluation.threat_model.eps=0.05"])
    with pytest.raises(
        AttackError, match=r"more than eps 0\.05 of the threat model; it was made with eps 0\.06"
    ):
        robust_nas.run_evaluation(smaller, model, tmp_path / "more")


def test_a_changed_file_another_label_and_another_shape_are_refused(made, tmp_path):
    folder, _ = made
    copy = tmp_path / "copy.npz"
    shutil.copy(folder / "set.npz", copy)
    attack = Saved(eps=0.06, file=str(copy))
    found = read_set(str(copy))
    images, labels = torch.from_numpy(found.clean), torch.from_numpy(found.labels)
    attack.refuse_images(images, labels)
    with pytest.raises(AttackError, match="image 0 has label"):
        attack.refuse_images(images, labels + 1)
    with pytest.raises(AttackError, match=r"holds images of shape \(1, 8, 8\), these are \(3, 8, 8\)"):
        attack.refuse_undefined(10, (3, 8, 8))
    np.savez(copy, **{key: getattr(found, key) for key in ("images", "clean", "labels")}, meta=np.array("{}"))
    with pytest.raises(DataError, match="is not the file of this attack any more"):
        attack.refuse_undefined(10, (1, 8, 8))
    with pytest.raises(DataError, match="meta: attack is missing"):
        read_set(str(copy))


BAD = [
    ("pgdd", {}, [], "got name 'pgdd'"),
    ("pgd", {"step": 4}, [], "step"),
    ("pgd", {"norm": "l1"}, [], "attacks that know l1: apgd, fmn"),
    ("none.yaml", {}, [], "there is no such file"),
    ("pgd", {}, ["data.name=nothing"], "nothing"),
]


@pytest.mark.parametrize(("name", "options", "overrides", "message"), BAD)
def test_mistakes_are_said_before_anything_starts_and_leave_no_folder(
    model, tmp_path, name, options, overrides, message
):
    with pytest.raises(RobustNASError, match=message) as caught:
        robust_nas.run_attack(name, model, tmp_path / "a" / "b", options=options, overrides=overrides)
    assert isinstance(caught.value, ConfigError)
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_set_in_an_attack_s_own_yaml_lies_next_to_it(tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "set.npz").touch()
    (tmp_path / "own" / "attack.yaml").write_text("name: saved\nfile: set.npz\n")
    monkeypatch.chdir(tmp_path)
    attack = attack_of("own/attack.yaml", {}, ThreatModel(eps=0.1))
    assert attack.file == str(tmp_path / "own" / "set.npz")


def test_the_file_of_a_set_in_a_config_lies_next_to_it(tmp_path):
    tree = {"attacks": [{"attack": {"name": "saved", "file": "set.npz"}}]}
    seen = seen_from_file(tree, tmp_path / "evaluation.yaml")
    assert seen["attacks"][0]["attack"]["file"] == str(tmp_path / "set.npz")
