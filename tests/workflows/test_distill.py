"""A distillation as a job: its folder, a kill and its resumption, where its set and model are used, what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from cases import CONFIG, config
from pages import read_page

import robust_nas
from robust_nas.config import to_yaml
from robust_nas.data import DataOptions
from robust_nas.errors import ConfigError, DataError, DivergenceError, KernelError, RunExistsError
from robust_nas.nets import read_model
from robust_nas.run_folder import CHECKPOINT, METRICS

SHORT = ("method.per_class=2", "method.steps=4", "method.batch_size=30", "method.validate_every=2")
FILES = ("learned.npz", "model.safetensors", "model.json", "architecture.yaml", METRICS)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe of a run, as a user has it."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "checkpoint_seconds": 0}))
    return path


@pytest.fixture
def small(recipe):
    def made(*overrides, method="adv-kip"):
        return robust_nas.distill_config(recipe, method, [*SHORT, *overrides])

    return made


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "set"
    overrides = [*SHORT, "method.learn_labels=true", "data.augment.crop=1"]
    robust_nas.distill(robust_nas.distill_config(recipe, "adv-kip", overrides), folder)
    return folder


def test_the_report_is_in_the_folder(finished):
    page = read_page(finished / "report.html")
    assert "Kernel regression on " in page.text
    assert "Damaged" not in page.text


LEARNS = ("method.learn_labels=true", "data.augment.crop=1")


def arrays(folder):
    return dict(np.load(folder / "learned.npz"))


def test_the_folder_is_a_model_folder_with_the_set_and_its_record(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {*FILES, "config.yaml", "recipe.yaml", "environment.json", "result.json", CHECKPOINT}
    assert {path.name for path in (finished / "figures").iterdir()} == {
        f"learned-set.{end}" for end in ("png", "svg", "csv")
    }
    found, record = arrays(finished), json.loads((finished / "result.json").read_text())
    assert found["image"].shape == (20, 1, 8, 8)
    assert found["pixels"].min() >= 0
    assert found["pixels"].max() <= 1
    assert abs(found["image"] / 255 - found["pixels"]).max() <= 0.5 / 255 + 1e-6
    assert (found["label"] == found["target"].argmax(1)).all()
    assert found["class_names"].tolist() == [str(digit) for digit in range(10)]
    lines = [json.loads(line) for line in (finished / METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 4]
    best = max(lines, key=lambda line: (line["robust"], line["clean"], -line["step"]))
    assert record["step"] == best["step"]
    assert (record["validation_clean"], record["validation_robust"]) == (best["clean"], best["robust"])
    assert record["start"] == {key: lines[0][key] for key in ("clean", "robust")}
    model = read_model(finished)
    assert (model.network.support.detach().numpy().astype(np.float32) == found["pixels"]).all()
    count = robust_nas.count(model.architecture, (1, 8, 8), 10)
    assert (record["params"], record["macs"]) == (count.params, count.macs) == (20 * 74, 20 * 74)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("step", [1, 3])
def test_killed_it_ends_in_the_same_bits(small, finished, tmp_path, step):
    def stop(job, done, total, note=""):
        if done == step:
            raise StoppedError

    with pytest.raises(StoppedError):
        robust_nas.distill(small(*LEARNS), tmp_path / "cut", progress=stop)
    assert not (tmp_path / "cut" / "result.json").exists()
    robust_nas.distill(small(*LEARNS), tmp_path / "cut", mode="resume")
    for name in FILES:
        assert (tmp_path / "cut" / name).read_bytes() == (finished / name).read_bytes(), name


def test_a_finished_one_is_shown_and_another_config_is_refused(small, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "made")
    found = robust_nas.distill(small(*LEARNS), folder, mode="resume")
    assert found == json.loads((finished / "result.json").read_text())
    for change in ("method.reg=1e-3", "threat_model.eps=0.2", "seed=1"):
        with pytest.raises(RunExistsError, match="another config"):
            robust_nas.distill(small(*LEARNS, change), folder, mode="resume")
    with pytest.raises(RunExistsError, match="exists already"):
        robust_nas.distill(small(*LEARNS), folder)
    assert robust_nas.distill(small("method.steps=0"), folder, mode="overwrite")["step"] == 0


def test_in_a_ball_of_nothing_adversarial_kip_is_kip_and_labels_stay(small, tmp_path):
    kip = robust_nas.distill(small("threat_model.eps=0", method="kip"), tmp_path / "kip")
    adversarial = robust_nas.distill(small("threat_model.eps=0"), tmp_path / "adv-kip")
    assert kip["step"] == adversarial["step"] > 0
    for name in ("learned.npz", "model.safetensors", METRICS):
        assert (tmp_path / "kip" / name).read_bytes() == (tmp_path / "adv-kip" / name).read_bytes()
    assert kip["other_labels"] == 0
    assert (arrays(tmp_path / "kip")["target"] == np.eye(10)[np.repeat(np.arange(10), 2)] - 0.1).all()


def test_one_key_of_the_threat_model_is_overridden_alone(recipe, tmp_path):
    tree = {**CONFIG, "evaluation": {"threat_model": {"norm": "l2", "eps": 0.5}}}
    (tmp_path / "l2.yaml").write_text(yaml.safe_dump(tree))
    made = robust_nas.distill_config(tmp_path / "l2.yaml", overrides=["threat_model.eps=0.25"])
    assert (made.threat_model.norm, made.threat_model.eps) == ("l2", 0.25)
    assert (made.method.name, made.evaluation.threat_model.eps) == ("adv-kip", 0.5)


def test_no_step_leaves_the_real_images(small, tmp_path):
    found = robust_nas.distill(small("method.steps=0"), tmp_path / "real")
    dataset = robust_nas.load_dataset(DataOptions(name="digits"))
    real = {image.tobytes() for image in dataset.train.pixels.numpy()}
    assert all(image.tobytes() in real for image in arrays(tmp_path / "real")["image"])
    assert found["start"] == {key: found[f"validation_{key}"] for key in ("clean", "robust")}


def test_a_convolutional_kernel_learns(small, tmp_path):
    overrides = ("method.kernel={name: myrtle-ntk, blocks: [1, 1]}", "method.per_class=1", "method.steps=1")
    more = ("method.batch_size=10", "method.validation_images=4", "method.validation_steps=1")
    found = robust_nas.distill(small(*overrides, *more, method="kip"), tmp_path / "conv")
    assert found["kernel"] == "myrtle-ntk"
    assert read_model(tmp_path / "conv").architecture.kernel.blocks == (1, 1)


# Where the set and the model are used


def test_an_evaluation_attacks_the_kernel_regression_in_white_and_black_box(finished, tmp_path):
    steps = ["{attack: {name: pgd, steps: 3}}", "{attack: {name: square, queries: 20}}"]
    model = config(
        f"evaluation.attacks=[{', '.join(steps)}]", "evaluation.images=20", "evaluation.findings=none"
    )
    tree = robust_nas.run_evaluation(model, finished, tmp_path / "evaluation")
    assert [row["label"] for row in tree["attacks"]] == ["pgd-3", "square-20"]
    assert tree["attacks"][0]["broken"] > 0
    own = robust_nas.workflows.config.model_config(finished)
    assert own.evaluation.threat_model.eps == 0.1


def test_a_network_is_trained_on_the_set_and_evaluated_on_the_other_dataset_s_test_images(finished, tmp_path):
    network = robust_nas.MLPArchitecture(name="mlp", depth=1, width=8)
    data = (
        "data.name=npz",
        f"data.path={finished / 'learned.npz'}",
        "data.limit=null",
        "training.batch_size=10",
    )
    folder = robust_nas.train(config(*data), network, tmp_path / "model")
    assert json.loads((folder / "result.json").read_text())["dataset"] == "npz"
    dataset = robust_nas.load_dataset(robust_nas.workflows.config.model_config(folder).data)
    digits = robust_nas.load_dataset(DataOptions(name="digits"))
    assert torch.equal(dataset.test.pixels, digits.test.pixels)
    assert len(dataset.train) == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.full(20, 10)}, r"label 10 of image 0; labels go from 0 to 9"),
        ({"class_names": np.array(["cat", "dog"])}, r"classes cat, dog.*data\.options\.test"),
        (
            {"image": np.zeros((20, 1, 4, 4), dtype=np.uint8)},
            r"\(20, 1, 4, 4\); uint8 of shape \(N, 8, 8, 1\)",
        ),
        ({"image": np.zeros((20, 1, 8, 8))}, r"image is float64"),
    ],
)
def test_a_set_of_other_classes_or_images_is_refused(finished, tmp_path, change, message):
    np.savez(tmp_path / "other.npz", **{**arrays(finished), **change})
    with pytest.raises(DataError, match=message):
        robust_nas.load_dataset(DataOptions(name="npz", path=str(tmp_path / "other.npz")))


def test_the_other_dataset_s_place_is_kept_as_an_absolute_path(finished, monkeypatch):
    monkeypatch.chdir(finished.parent)
    options = {"test": {"name": "npz", "test": "digits"}, "test_path": "set/learned.npz"}
    data = DataOptions(name="npz", path="set/learned.npz", options=options)
    assert data.options["test_path"] == str(finished / "learned.npz")
    assert data.options["test"] == options["test"]


# What is refused, before anything is written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("method.per_class=11", r"method\.per_class: got 11, which is 110 images of 10 classes; at most 100"),
        ("method.per_class=9", r"method\.per_class: got 9, but class number . has 8 training images"),
        ("method.batch_size=9", r"method\.batch_size: got 9; at least 10"),
        ("method.kernel={name: myrtle-ntk, blocks: [1, 1, 1, 1]}", None),
        ("method.kernel={name: myrtle-ntk, blocks: [1, 1, 1, 1, 1]}", r"method\.kernel\.blocks"),
        ("method.kernel=rbf", r"got name 'rbf'; allowed: relu-ntk, relu-nngp, myrtle-ntk, linear"),
        ("method.reg=-1", r"method\.reg"),
        ("method.learning_rate=.nan", r"method\.learning_rate"),
        ("method.stepz=3", r"unknown key 'stepz'; did you mean 'steps'\?"),
        ("training.epochs=3", r"unknown key 'training'"),
        ("threat_model.eps=8", r"did you mean 8/255\?"),
    ],
)
def test_a_mistake_is_named_before_anything_is_written(small, tmp_path, change, message):
    if message is None:  # 8 x 8 images can be halved three times
        assert small(change).method.kernel.blocks == (1, 1, 1, 1)
        return
    with pytest.raises(ConfigError, match=message):
        robust_nas.distill(small(change), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_kernel_without_a_solution_is_refused_with_what_to_change(small, tmp_path):
    change = ("method.kernel=linear", "method.per_class=7", "method.reg=0")  # 70 images of 64 pixels
    with pytest.raises(KernelError, match=r"70 support images is not positive definite.*larger method\.reg"):
        robust_nas.distill(small(*change), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_an_unknown_method_and_one_that_the_file_does_not_have_are_named(recipe, small, tmp_path):
    with pytest.raises(ConfigError, match=r"--method: got 'dd'; allowed: kip, adv-kip"):
        robust_nas.distill_config(recipe, "dd")
    (tmp_path / "mine.yaml").write_text(to_yaml(small()))
    assert robust_nas.distill_config(tmp_path / "mine.yaml") == small()
    with pytest.raises(ConfigError, match=r"got 'kip', but .* has method 'adv-kip'"):
        robust_nas.distill_config(tmp_path / "mine.yaml", "kip")


def test_several_ranks_are_refused(small, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"distill: started by torchrun with 2 processes"):
        robust_nas.distill(small(), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_step_that_leaves_no_number_ends_it_with_the_checkpoint_kept(small, tmp_path, monkeypatch):
    from robust_nas.distillation import loop

    def broken(*arguments):
        return batch_loss(*arguments) * torch.nan

    batch_loss = loop.batch_loss
    monkeypatch.setattr(loop, "batch_loss", broken)
    with pytest.raises(DivergenceError, match=r"the loss is nan.*method\.learning_rate"):
        robust_nas.distill(small(), tmp_path / "made")
    assert (tmp_path / "made" / CHECKPOINT).is_file()


def test_a_kernel_regression_is_not_trained_nor_a_member_of_an_ensemble(finished, tmp_path):
    with pytest.raises(ConfigError, match=r"robust-nas distill.* makes and no training.*data\.name=npz"):
        robust_nas.train(config(), robust_nas.load_architecture(finished), tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(ConfigError, match=r"member: .*that a training makes"):
        config("network.particles=2").network.made_of(robust_nas.load_architecture(finished))


def test_test_images_that_are_not_there_are_named_by_their_own_key(finished, tmp_path):
    options = {"test": {"name": "fashion-mnist"}, "test_path": str(tmp_path / "none")}
    data = DataOptions(name="npz", path=str(finished / "learned.npz"), options=options)
    with pytest.raises(DataError, match=r"none: no such folder.*data\.options\.test_path=PATH"):
        robust_nas.load_dataset(data)
