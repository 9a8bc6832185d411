"""A job is known by what its result depends on: a new section or key of a config makes no older folder useless."""

import json

import pytest
from cases import CONFIG, config
from safetensors.torch import load_file, save_file

import robust_nas
from robust_nas.attacks import PGD
from robust_nas.config import Options, apply_overrides, check, read_yaml, to_yaml
from robust_nas.errors import CheckpointError, ConfigError, RunExistsError
from robust_nas.run_folder import CHECKPOINT, RESULT
from robust_nas.search import DSARA
from robust_nas.workflows import search as search_workflow
from robust_nas.workflows import train as train_workflow
from robust_nas.workflows.config import RunConfig, model_config

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1, 1), widths=(4, 8))
LONG = ("checkpoint_seconds=0", "training.epochs=3", "search.epochs=3")


class Extra(Options):
    value: int = 1


class LaterRunConfig(RunConfig):
    """A run config of a later version, with a section that today's has not."""

    extra: Extra = Extra()


def later(*overrides):
    return check(LaterRunConfig, apply_overrides(CONFIG, overrides), "later")


class StoppedError(Exception):
    pass


def stopper(at):
    def progress(job, done, total, note=""):
        if (job, done) == at:
            raise StoppedError

    return progress


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_an_interrupted_search_goes_on_after_a_section_was_added(tmp_path):
    robust_nas.run_search(config(*LONG), tmp_path / "whole")
    with pytest.raises(StoppedError):
        robust_nas.run_search(config(*LONG), tmp_path / "cut", progress=stopper(("search", 3)))
    found = robust_nas.run_search(
        later(*LONG, "extra.value=2", "evaluation.images=7"), tmp_path / "cut", mode="resume"
    )
    for name in ("architecture.yaml", "alphas.json", "metrics.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert read_yaml(found.folder / "recipe.yaml")["extra"] == {"value": 2}


def test_an_interrupted_training_goes_on_after_a_section_was_added(tmp_path):
    robust_nas.train(config(*LONG), TINY, tmp_path / "whole")
    with pytest.raises(StoppedError):
        robust_nas.train(config(*LONG), TINY, tmp_path / "cut", progress=stopper(("train", 4)))
    assert (tmp_path / "cut" / CHECKPOINT).is_file()
    robust_nas.train(later(*LONG, "search.epochs=4", "device=auto"), TINY, tmp_path / "cut", mode="resume")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.mark.parametrize("workflow", [search_workflow, train_workflow])
def test_a_key_that_a_later_version_added_with_its_default_changes_nothing(tmp_path, monkeypatch, workflow):
    searching = workflow is search_workflow
    record = "SearchJob" if searching else "TrainJob"

    def start(mode):
        if searching:
            robust_nas.run_search(config(), tmp_path / "run", mode=mode)
        else:
            robust_nas.train(config(), TINY, tmp_path / "run", mode=mode)

    start("new")
    before = (tmp_path / "run" / RESULT).read_bytes()

    class Later(getattr(workflow, record)):
        added: int = 3

    monkeypatch.setattr(workflow, record, Later)
    monkeypatch.setattr(RunConfig, "added", 3, raising=False)
    start("resume")
    assert (tmp_path / "run" / RESULT).read_bytes() == before
    monkeypatch.setattr(RunConfig, "added", 4, raising=False)
    with pytest.raises(RunExistsError, match="different: added"):
        start("resume")


@pytest.mark.parametrize(
    "change",
    ["seed=6", "data.limit=90", "training.learning_rate=0.2", "training.loss={name: natural}", "name=other"],
)
def test_whatever_a_training_depends_on_is_another_training(tmp_path, change):
    loss = "training.loss={name: pgd-at, attack: {name: fgsm-rs, eps: 0.1}}"
    robust_nas.train(config(loss), TINY, tmp_path / "run")
    with pytest.raises(RunExistsError, match="different: "):
        robust_nas.train(config(loss, change), TINY, tmp_path / "run", mode="resume")


def test_a_model_folder_tells_the_evaluation_that_it_was_trained_for(tmp_path):
    robust_nas.train(config("evaluation.images=9"), TINY, tmp_path / "model")
    assert model_config(tmp_path / "model").evaluation.images == 9
    # Folders of older versions hold the whole config in config.yaml, under `config`.
    (tmp_path / "model" / "config.yaml").write_text(
        to_yaml({"config": read_yaml(tmp_path / "model" / "recipe.yaml")})
    )
    (tmp_path / "model" / "recipe.yaml").unlink()
    assert model_config(tmp_path / "model").evaluation.images == 9
    # Its attacks are its threat model's, so that this alone has to be changed.
    changed = model_config(tmp_path / "model", ["evaluation.threat_model.eps=0.05"]).evaluation
    assert [step.attack.eps for step in changed.steps] == [0.05, 0.05]


@pytest.mark.parametrize("change", ["activation", "mean", "weights"])
def test_an_evaluation_of_another_model_is_not_taken_for_this_one_s(tmp_path, change):
    folder = robust_nas.train(config(), TINY, tmp_path / "model")
    robust_nas.run_evaluation(config(), folder)
    robust_nas.export_model(folder, tmp_path / "before")
    assert '"verdict": null' not in (tmp_path / "before" / "network.py").read_text()
    if change == "activation":
        path = folder / "architecture.yaml"
        path.write_text(path.read_text().replace("activation: relu", "activation: silu"))
    elif change == "mean":
        path = folder / "model.safetensors"
        state = load_file(path)
        save_file(
            {**state, "normalise.mean": state["normalise.mean"] + 0.25}, path, metadata={"format": "pt"}
        )
    else:
        other = robust_nas.train(config("seed=6"), TINY, tmp_path / "other")
        own = load_file(folder / "model.safetensors")
        state = load_file(other / "model.safetensors")
        state |= {name: own[name] for name in own if name.startswith("normalise.")}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    kind, why = RunExistsError, "different: digest"
    if change == "mean":  # the description says what the weights were trained with
        kind, why = CheckpointError, r"model.json: mean is .* was trained with"
    with pytest.raises(kind, match=why):
        robust_nas.run_evaluation(config(), folder, mode="resume")


def test_the_threat_model_stands_once_and_every_attack_inherits_it():
    tree = json.loads(json.dumps(CONFIG))
    del (
        tree["evaluation"]["threat_model"],
        tree["search"]["attack"]["eps"],
        tree["training"]["validation_attack"]["eps"],
    )
    tree["threat_model"] = {"norm": "l2", "eps": 0.5}
    tree["training"]["loss"] = {"name": "trades", "attack": {"name": "pgd", "loss": "kl", "eps": 0.25}}
    found = check(RunConfig, tree, "file")
    assert (found.search.attack.norm, found.search.attack.eps) == ("l2", 0.5)
    assert (found.training.validation_attack.norm, found.training.validation_attack.eps) == ("l2", 0.5)
    assert (found.training.loss.attack.norm, found.training.loss.attack.eps) == ("l2", 0.25)
    assert (found.evaluation.threat_model.norm, found.evaluation.threat_model.eps) == ("l2", 0.5)
    assert check(RunConfig, read_back(found), "again") == found


def test_a_wrong_threat_model_is_placed_and_hides_no_other_mistake():
    tree = json.loads(json.dumps(CONFIG))
    del tree["search"]["attack"], tree["evaluation"]["threat_model"]
    tree["threat_model"] = {"eps": -1}
    tree["training"]["epochs"] = 0
    with pytest.raises(ConfigError) as caught:
        check(RunConfig, tree, "file")
    lines = str(caught.value).splitlines()
    for place in ("threat_model.eps: got -1", "search.attack.eps: got -1", "training.epochs: got 0"):
        assert any(line.startswith(f"file: {place}; ") for line in lines)


def test_the_usual_attack_of_a_search_is_pgd_7_with_the_threat_model_or_with_arnas_s_numbers():
    published = PGD(eps=8 / 255, step_size=2 / 255, steps=7, keep="last")
    assert DSARA().attack == published
    tree = json.loads(json.dumps(CONFIG))
    del tree["search"]["attack"], tree["evaluation"]["threat_model"]
    tree["threat_model"] = {"norm": "l2", "eps": 0.5}
    found = check(RunConfig, tree, "file").search.attack
    assert found == PGD(eps=0.5, norm="l2", steps=7, keep="last")
    assert DSARA(attack={"name": "pgd", "eps": 0.1}).attack == PGD(eps=0.1, keep="last")


def read_back(value):
    return json.loads(json.dumps(value.model_dump(mode="json")))
