"""The training of an attack as a job: its folder, a kill and its resumption, what is refused, and where it is used."""

import json
import shutil

import pytest
import torch
import yaml
from cases import config
from pages import read_page
from safetensors.torch import load_file

import robust_nas
from robust_nas.attacks import AIGAN
from robust_nas.config import check, to_yaml
from robust_nas.errors import (
    AttackError,
    ConfigError,
    DataError,
    DivergenceError,
    NoModelError,
    RunExistsError,
)
from robust_nas.nets.digest import model_digest
from robust_nas.nets.generator_folder import read_generator
from robust_nas.run_folder import CHECKPOINT, METRICS
from robust_nas.workflows.attack_config import AttackTrainingConfig

NETWORK = robust_nas.MLPArchitecture(name="mlp", depth=1, width=16)
SHORT = (
    *("method.epochs=3", "method.stage1_epochs=1", "method.batch_size=32", "method.attacker_steps=2"),
    *("method.widths=[4, 4, 8]", "method.blocks=1", "checkpoint_seconds=0"),
    *("report.images=12", "report.pgd_steps=2", "report.batch_size=4", "report.rounds=1"),
)
LAST = ("train attack", 6)  # of 2 steps an epoch


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    folder = tmp_path_factory.mktemp("victim") / "model"
    return robust_nas.train(config("training.epochs=6", "training.learning_rate=0.3"), NETWORK, folder)


def small(victim, *overrides):
    return robust_nas.attack_config(victim, overrides=[*SHORT, *overrides])


@pytest.fixture(scope="module")
def finished(victim, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "generator"
    robust_nas.train_attack(small(victim), victim, folder)
    return folder


def test_the_report_is_in_the_folder(finished):
    page = read_page(finished / "report.html")
    assert "ai-gan leads " in page.text
    assert "Damaged" not in page.text


def test_a_folder_holds_the_generator_its_description_and_a_report(victim, finished):
    found = read_generator(finished)
    assert found.description.victim.digest == model_digest(robust_nas.load_model(victim))
    assert (found.description.norm, found.description.eps, found.description.input_shape) == (
        "linf",
        0.1,
        (1, 8, 8),
    )
    names = {path.name for path in finished.iterdir()}
    assert names >= {"config.yaml", "environment.json", METRICS, "report.json", "result.json", "figures"}
    assert {path.name for path in (finished / "figures").iterdir()} == {
        f"generator.{end}" for end in ("png", "svg", "csv")
    }
    records = [json.loads(line) for line in (finished / METRICS).read_text().splitlines()]
    assert [record["stage"] for record in records] == [1, 2, 2]
    best = max(records, key=lambda record: (record["success"], -record["validation_loss"]))
    report = json.loads((finished / "report.json").read_text())
    assert (report["epoch"], report["validation"]["success"]) == (best["epoch"], best["success"])


def test_the_report_counts_every_pair_and_every_pass(victim, finished):
    report = json.loads((finished / "report.json").read_text())
    assert len(report["classes"]) == 10
    assert sum(row["pairs"] for row in report["classes"]) == report["all"]["pairs"]
    # Every image with each of the 9 other classes, less one where the victim's wrong answer is the target.
    wrong = round(report["images"] * (1 - report["clean"]))
    assert report["all"]["pairs"] == 9 * 12 - wrong
    network, generator = robust_nas.load_model(victim), robust_nas.load_generator(finished)
    victim_macs = robust_nas.count(NETWORK, (1, 8, 8), 10).macs
    assert report["macs"]["pgd"] == pytest.approx(
        (2 + 2 + 2) * victim_macs
    )  # image, 2 steps, last iterate; 2 back
    assert report["params"] == sum(parameter.numel() for parameter in generator.parameters())
    assert report["macs_ratio"] == pytest.approx(report["macs"]["pgd"] / report["macs"]["attack"], abs=0.01)
    assert all(value > 0 for value in report["ms_per_image"].values())
    assert not any(parameter.grad is not None for parameter in network.parameters())


class StoppedError(Exception):
    pass


def stopper(*at):
    def progress(job, done, total, note=""):
        if (job, done) in at:
            raise StoppedError

    return progress


def same(one, other):
    first, second = (load_file(folder / "generator.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (one / METRICS).read_bytes() == (other / METRICS).read_bytes()
    assert (one / "generator.json").read_bytes() == (other / "generator.json").read_bytes()


@pytest.mark.parametrize("step", [1, 5])
def test_killed_in_any_stage_it_ends_in_the_same_bits(victim, finished, tmp_path, step):
    with pytest.raises(StoppedError):
        robust_nas.train_attack(
            small(victim), victim, tmp_path / "cut", progress=stopper(("train attack", step))
        )
    robust_nas.train_attack(small(victim), victim, tmp_path / "cut", mode="resume")
    same(tmp_path / "cut", finished)


def test_killed_before_its_report_it_only_measures(victim, finished, tmp_path):
    with pytest.raises(StoppedError):
        robust_nas.train_attack(
            small(victim), victim, tmp_path / "cut", progress=stopper(("measure attack", 1))
        )
    steps = []
    robust_nas.train_attack(
        small(victim), victim, tmp_path / "cut", mode="resume", progress=lambda job, *_: steps.append(job)
    )
    assert "train attack" not in steps
    same(tmp_path / "cut", finished)


def test_a_finished_one_is_shown_and_another_config_is_refused(victim, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "made")
    report = robust_nas.train_attack(small(victim), victim, folder, mode="resume")
    assert report == json.loads((finished / "report.json").read_text())
    for change in ("method.gan=bce", "threat_model.eps=0.2", "seed=1"):
        with pytest.raises(RunExistsError, match="another config"):
            robust_nas.train_attack(small(victim, change), victim, folder, mode="resume")
    with pytest.raises(RunExistsError, match="exists already"):
        robust_nas.train_attack(small(victim), victim, folder)


def test_another_victim_in_the_same_place_is_another_training(victim, finished, tmp_path):
    model, folder = shutil.copytree(victim, tmp_path / "model"), shutil.copytree(finished, tmp_path / "made")
    robust_nas.train_attack(small(model), model, tmp_path / "made2")
    robust_nas.train(config("training.epochs=1"), NETWORK, model, mode="overwrite")
    with pytest.raises(RunExistsError, match="digest"):
        robust_nas.train_attack(small(model), model, tmp_path / "made2", mode="resume")
    assert folder.is_dir()


def test_a_loss_that_is_not_finite_ends_the_training_with_the_checkpoint_kept(victim, tmp_path):
    wild = small(victim, "method.learning_rate=1e30")
    with pytest.raises(DivergenceError, match=r"method\.learning_rate"):
        robust_nas.train_attack(wild, victim, tmp_path / "wild")


# What is refused, before anything is written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("method.name=advgan", r"method\.name: got 'advgan'.*ai-gan"),
        ("method.gann=bce", r"unknown key 'gann'; did you mean 'gan'\?"),
        ("method.gan=wgan", r"method\.gan: got 'wgan'"),
        ("threat_model.eps=0", "eps is 0"),
        ("threat_model.eps=8", r"did you mean 8/255\?"),
        ("method.batch_size=1", r"method\.batch_size"),
        ("method.adversarial_weight=0", r"method\.adversarial_weight"),
    ],
)
def test_a_mistake_in_the_config_is_named(victim, change, message):
    with pytest.raises(ConfigError, match=message):
        small(victim, change)


def test_an_unknown_method_and_a_folder_without_a_model(victim, tmp_path):
    with pytest.raises(ConfigError, match=r"--method: got 'gan'; allowed: ai-gan"):
        robust_nas.attack_config(victim, "gan")
    with pytest.raises(NoModelError, match="no model folder"):
        robust_nas.train_attack(small(victim), tmp_path, tmp_path / "made")
    assert not (tmp_path / "made").exists()
    with pytest.raises(ConfigError, match="holds the model"):
        robust_nas.train_attack(small(victim), victim, victim)


def test_other_images_than_the_victim_s_are_refused(victim, tmp_path, monkeypatch):
    model = shutil.copytree(victim, tmp_path / "model")
    path = model / "model.json"
    tree = json.loads(path.read_text())
    tree["made_by"]["dataset_checksum"] = "0" * 64
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match="trained on other images"):
        robust_nas.train_attack(small(victim), model, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_the_printed_config_is_the_config(victim, tmp_path):
    made = small(victim)
    assert check(AttackTrainingConfig, yaml.safe_load(to_yaml(made)), "again") == made
    (tmp_path / "mine.yaml").write_text(to_yaml(made))
    assert robust_nas.attack_config(tmp_path / "mine.yaml") == made


# Where a generator is used


def evaluated(model, folder, *attacks, out):
    steps = [{"attack": {"name": "fgsm"}}, *({"attack": each} for each in attacks)]
    options = ["evaluation.findings=none", "evaluation.images=30", f"evaluation.attacks={json.dumps(steps)}"]
    return robust_nas.run_evaluation(config(*options), model, out)


def test_an_evaluation_lists_it_and_another_victim_refuses_it(victim, finished, tmp_path):
    attack = {"name": "ai-gan", "generator": str(finished)}
    tree = evaluated(victim, finished, attack, out=tmp_path / "evaluation")
    row = tree["attacks"][1]
    assert row["label"] == "ai-gan"
    assert row["parameters"]["trained_for"] == "mlp"
    assert tree["verdict"]["status"] != "RELIABLE"
    other = robust_nas.train(config("training.epochs=1"), NETWORK, tmp_path / "other")
    with pytest.raises(AttackError, match="another victim"):
        evaluated(other, finished, attack, out=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    made = evaluated(other, finished, {**attack, "transfer": True}, out=tmp_path / "transferred")
    assert made["attacks"][1]["label"] == "ai-gan-transferred"
    through = {"name": "transfer", "surrogates": [str(victim)], "attack": attack}
    assert (
        evaluated(other, finished, through, out=tmp_path / "through")["attacks"][1]["label"]
        == "transfer-ai-gan"
    )


def test_an_evaluation_refuses_another_threat_model_before_it_writes(victim, finished, tmp_path):
    attack = {"name": "ai-gan", "generator": str(finished), "eps": 0.1}
    options = ["evaluation.threat_model.eps=0.05", "evaluation.suite=null"]
    steps = json.dumps([{"attack": {key: attack[key] for key in ("name", "generator")}}])
    with pytest.raises(AttackError, match=r"trained for eps 0\.1, eps is 0\.05"):
        robust_nas.run_evaluation(
            config(*options, f"evaluation.attacks={steps}"), victim, tmp_path / "evaluation"
        )
    assert not (tmp_path / "evaluation").exists()
    assert AIGAN(**attack).label == "ai-gan"


def test_a_network_is_trained_on_its_images(finished, tmp_path):
    attack = {"name": "ai-gan", "generator": str(finished), "targets": "random", "eps": 0.1}
    loss = json.dumps({"name": "pgd-at", "attack": attack})
    folder = robust_nas.train(config(f"training.loss={loss}"), NETWORK, tmp_path / "model")
    assert (folder / "model.safetensors").is_file()
    assert (folder / CHECKPOINT).is_file()


def test_a_model_that_is_not_there_is_named_as_no_model_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere: is no model folder"):
        robust_nas.attack_config(tmp_path / "nowhere")
