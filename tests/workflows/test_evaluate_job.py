"""The evaluation of a model folder: what it records, and that `kill -9` at any moment changes nothing."""

import json
import os
import random
import shutil
import signal
import threading

import forks
import pytest
from cases import config
from pages import read_page

import robust_nas
from robust_nas.config import read_yaml
from robust_nas.errors import CheckpointError, ConfigError, FigureWarning, RunError, RunExistsError
from robust_nas.figures.examples import AdversarialGrid
from robust_nas.record_log import RecordLog
from robust_nas.run_folder import read_json
from robust_nas.workflows import evaluate as job
from robust_nas.workflows.config import EvaluationConfig, model_config

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=8, depths=(1, 1), widths=(8, 16))
EVALUATION = [
    "checkpoint_seconds=0",
    "evaluation.suite=null",
    "evaluation.attacks=[{attack: {name: pgd, steps: 6}}, {attack: {name: apgd, steps: 12}}]",
    "evaluation.images=24",
    "evaluation.batch_size=8",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    chosen = config("data.limit=800", "training.epochs=5", "evaluation.threat_model.eps=0.04")
    return robust_nas.train(chosen, TINY, tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture(scope="module")
def evaluated(model, tmp_path_factory):
    """The finished folder of an evaluation, and what it returned."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    return out, robust_nas.run_evaluation(model_config(model, EVALUATION), model, out)


def test_the_report_is_in_the_folder(evaluated):
    out, tree = evaluated
    page = read_page(out / "report.html")
    assert f"{100 * tree['robust']['accuracy']:.1f} %" in page.text
    assert tree["verdict"]["status"] in page.text
    assert "Damaged" not in page.text


def timeless(tree):
    attacks = [{**attack, "seconds": 0} for attack in tree["attacks"]]
    return {**tree, "seconds": 0, "findings_seconds": 0, "attacks": attacks}


def test_the_config_records_the_attacks_as_the_suite_had_them(model, tmp_path):
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        "attacks:\n- attack: {name: pgd, steps: 3}\n- attack: {name: apgd, steps: 4}\n  images: 8\n"
    )
    chosen = model_config(
        model, ["evaluation.attacks=null", f"evaluation.suite={suite}", "evaluation.images=12"]
    )
    tree = robust_nas.run_evaluation(chosen, model, tmp_path / "out")
    record = read_yaml(tmp_path / "out" / "config.yaml")
    assert [step["attack"]["name"] for step in record["steps"]] == ["pgd", "apgd"]
    assert record["steps"][0]["attack"]["steps"] == 3
    assert [step["images"] for step in record["steps"]] == [None, 8]
    assert record["steps"][1]["attack"]["eps"] == 0.04
    assert record["model"].endswith("model")
    assert (tree["suite"], tree["robust"]["attacks"]) == (str(suite), ["pgd-3", "apgd-ce"])
    # The suite's file is part of what was asked: what another one adds follows what was done.
    suite.write_text("attacks:\n- attack: {name: pgd, steps: 5}\n")
    assert robust_nas.run_evaluation(chosen, model, tmp_path / "out", mode="resume") == tree  # read before
    chosen = model_config(
        model, ["evaluation.attacks=null", f"evaluation.suite={suite}", "evaluation.images=12"]
    )
    tree = robust_nas.run_evaluation(chosen, model, tmp_path / "out", mode="resume")
    assert tree["robust"]["attacks"] == ["pgd-3", "apgd-ce", "pgd-5"]


def test_what_it_leaves(model, tmp_path):
    told = []
    tree = robust_nas.run_evaluation(
        model_config(model, EVALUATION), model, tmp_path / "out", progress=lambda *a: told.append(a[:3])
    )
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == tree
    assert (tree["dataset"], tree["schema_version"]) == ("digits", 2)
    assert 0 < tree["robust"]["accuracy"] < tree["clean"]["accuracy"]
    dataset = robust_nas.load_dataset(model_config(model, EVALUATION).data)
    assert tree["tested"] == {
        "dataset": "digits",
        "part": "test",
        "split_by": "robust_nas",
        "available": 360,
        "images": 24,
        "seed": tree["seed"],
        "checksum": dataset.checksum,
        "test_checksum": dataset.test_checksum,
        "text": "24 of the 360 test images of digits (split by robust_nas, for want of an official split; "
        f"drawn with seed {tree['seed']})",
    }
    assert tree["warnings"] == []  # this toolkit trained it, on the other part of the split
    assert "weights" not in tree
    assert f"The model tiny was evaluated on {tree['tested']['text']} under linf" in tree["sentence"]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["robust"] == tree["robust"]["accuracy"]
    assert result["verdict"] == tree["verdict"]["status"]
    drawn = {path.name for path in (tmp_path / "out" / "figures").glob("*.png")}
    assert {"evaluation.png", "loss_traces.png", "examples.png"} <= drawn
    assert ("eps_curve.png" in drawn) == bool(tree["eps_curve"])
    jobs = list(dict.fromkeys(name for name, _, _ in told))
    assert jobs == [f"evaluate: {part}" for part in ("clean", "pgd-6", "apgd-ce", "findings")]
    # A finished evaluation is read, not made again.
    assert (
        robust_nas.run_evaluation(model_config(model, EVALUATION), model, tmp_path / "out", mode="resume")
        == tree
    )


def test_it_is_what_the_library_call_says(model, evaluated):
    chosen = model_config(model, EVALUATION)
    _, tree = evaluated
    found = robust_nas.evaluate(
        robust_nas.load_model(model),
        robust_nas.load_dataset(chosen.data, seed=chosen.seed).test,
        chosen.evaluation.threat_model,
        chosen.evaluation.steps,
        images=24,
        batch_size=8,
        seed=chosen.seed,
    )
    assert timeless(tree) == {
        **timeless(found.to_dict()),
        "model": tree["model"],
        "dataset": "digits",
        "tested": tree["tested"],
        "warnings": [],
        "sentence": tree["sentence"],
    }


@pytest.mark.parametrize("killed", ["records", "figures"])
def test_it_goes_on_where_an_error_stopped_it(model, evaluated, tmp_path, monkeypatch, killed):
    chosen = model_config(model, EVALUATION)
    _, expected = evaluated
    with monkeypatch.context() as patched:
        if killed == "figures":
            patched.setattr(
                job.figures, "draw_figures", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt)
            )
        else:
            saved = []

            def append(self, name, record):
                saved.append(name)
                original(self, name, record)
                if len(saved) == 4:
                    raise KeyboardInterrupt

            original = RecordLog.append
            patched.setattr(RecordLog, "append", append)
        with pytest.raises(KeyboardInterrupt):
            robust_nas.run_evaluation(chosen, model, tmp_path / "cut")
    assert not (tmp_path / "cut" / "result.json").exists()
    found = robust_nas.run_evaluation(chosen, model, tmp_path / "cut", mode="resume")
    assert timeless(found) == timeless(expected)


def test_a_checkpoint_of_another_job_is_refused(model, evaluated, tmp_path):
    chosen = model_config(model, EVALUATION)
    shutil.copytree(evaluated[0], tmp_path / "out")
    (tmp_path / "out" / "result.json").unlink()
    (tmp_path / "out" / "checkpoint.pt").write_bytes((model / "checkpoint.pt").read_bytes())
    with pytest.raises(CheckpointError, match="belongs to another config"):
        robust_nas.run_evaluation(chosen, model, tmp_path / "out", mode="resume")


def test_what_a_model_cannot_be_attacked_with_leaves_no_folder(model, tmp_path):
    chosen = model_config(model, [*EVALUATION, "evaluation.deployed.abstains=true"])
    official = EvaluationConfig.of(
        model_config(
            model, ["evaluation.attacks=[{attack: {name: autoattack}}]", "evaluation.deployed.abstains=true"]
        )
    )
    assert chosen.evaluation.deployed.abstains
    with pytest.raises(robust_nas.errors.AttackError, match="knows no rejection"):
        robust_nas.run_evaluation(official, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="needs a folder of its own"):
        robust_nas.run_evaluation(chosen, model, model)


def work(config, model, out, name=None, done=None, delay=None):
    """Evaluates; `delay` seconds after `done` per cent of the part `name` it is killed."""

    def progress(job, at, total, note=""):
        if job == f"evaluate: {name}" and at >= done:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    robust_nas.run_evaluation(config, model, out, mode="resume", progress=progress)


# (part, per cent of it after which a timer is armed): in batches, between the attacks, and in the findings.
MOMENTS = [("pgd-6", 30), ("pgd-6", 100), ("apgd-ce", 60), ("findings", 0), ("findings", 50)]


@pytest.mark.slow
def test_killed_again_and_again_an_evaluation_ends_in_the_same_figures(model, tmp_path):
    asked = (work, model_config(model, EVALUATION), model)
    log = tmp_path / "log.txt"
    forks.run(log, *asked, tmp_path / "whole")
    delay = random.Random(0)  # noqa: S311 - moments, not secrets
    codes = [
        forks.exit_code(log, *asked, tmp_path / "cut", part, done, delay.uniform(0, 0.03))
        for part, done in MOMENTS
    ]
    assert (
        codes.count(-signal.SIGKILL) >= len(MOMENTS) - 1
    )  # the last one may have been quicker than its timer
    forks.run(log, *asked, tmp_path / "cut")
    trees = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("cut", "whole")]
    assert timeless(trees[0]) == timeless(trees[1])
    for stem in ("loss_traces", "examples"):
        images = [(tmp_path / name / "figures" / f"{stem}.png").read_bytes() for name in ("cut", "whole")]
        assert images[0] == images[1]
    names = [sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("cut", "whole")]
    assert names[0] == names[1]


# More than was asked for


def test_an_evaluation_takes_more_images_and_attacks_and_keeps_what_was_done(
    model, evaluated, tmp_path, monkeypatch
):
    out, first = shutil.copytree(evaluated[0], tmp_path / "out"), evaluated[1]
    more = [*EVALUATION, "evaluation.images=40"]
    found = robust_nas.run_evaluation(model_config(model, more), model, out, mode="resume")
    assert found["clean"]["images"] == found["robust"]["images"] == 40
    assert found["extended"] == [{"images": 24, "attacks": 2, "findings": "budget"}]
    assert set(first["clean"]["wrong_indices"]) <= set(found["clean"]["wrong_indices"])
    for old, new in zip(first["attacks"], found["attacks"], strict=True):
        assert set(old["broken_indices"]) <= set(new["broken_indices"])
        assert old["forwards"] < new["forwards"]
    assert {finding["images"] for finding in found["findings"]} >= {40}
    # The first request, and the second, are answered by it; nothing runs again.
    monkeypatch.setattr(job, "_evaluate", lambda *_: pytest.fail("it was finished"))
    for asked in (EVALUATION, more):
        assert robust_nas.run_evaluation(model_config(model, asked), model, out, mode="resume") == found
    fewer = model_config(model, [*EVALUATION, "evaluation.images=30"])
    with pytest.raises(RunExistsError, match=r"evaluation.images: got 30; it took 40 images.*not cut"):
        robust_nas.run_evaluation(fewer, model, out, mode="resume")
    monkeypatch.undo()
    third = "evaluation.attacks=[{attack: {name: fgsm}}, {attack: {name: pgd, steps: 6}}]"
    asked = model_config(model, [*more, third, "evaluation.findings=full"])
    last = robust_nas.run_evaluation(asked, model, out, mode="resume")
    assert last["robust"]["attacks"] == ["pgd-6", "apgd-ce", "fgsm"]
    assert last["attacks"][:2] == found["attacks"]
    assert last["attacks"][2]["attacked"] == found["robust"]["correct"]
    assert [each["images"] for each in last["extended"]] == [24, 40]
    assert read_yaml(out / "config.yaml")["evaluation"]["findings"] == "full"


def test_killed_in_an_extension_it_ends_in_the_same_figures(model, evaluated, tmp_path):
    trees = []
    chosen = model_config(model, [*EVALUATION, "evaluation.images=40"])
    for kills in ((), (1, 5)):
        out = shutil.copytree(evaluated[0], tmp_path / f"out{len(kills)}")
        for kill in kills:
            with pytest.raises(KeyboardInterrupt):
                robust_nas.run_evaluation(chosen, model, out, mode="resume", progress=stop_at(kill))
        trees.append(timeless(robust_nas.run_evaluation(chosen, model, out, mode="resume")))
    assert trees[1] == trees[0]


def stop_at(count):
    calls = []

    def progress(*args):
        calls.append(args)
        if len(calls) > count:
            raise KeyboardInterrupt

    return progress


def test_an_attack_keeps_its_share(model, tmp_path):
    asked = [*EVALUATION, "evaluation.attacks=[{attack: {name: pgd, steps: 6}, images: 8}]"]
    robust_nas.run_evaluation(model_config(model, asked), model, tmp_path / "out")
    with pytest.raises(RunExistsError, match=r"attack 'pgd-6': got a share of None images, it had 8"):
        robust_nas.run_evaluation(model_config(model, EVALUATION), model, tmp_path / "out", mode="resume")


def test_another_threat_model_is_another_evaluation(model, evaluated, tmp_path):
    shutil.copytree(evaluated[0], tmp_path / "out")
    before = (tmp_path / "out" / "result.json").read_bytes()
    other = model_config(model, [*EVALUATION, "evaluation.threat_model.eps=0.03"])
    with pytest.raises(RunExistsError, match=r"different: .*eps"):
        robust_nas.run_evaluation(other, model, tmp_path / "out", mode="resume")
    assert (tmp_path / "out" / "result.json").read_bytes() == before


MANY = """
import torch

class Many(torch.nn.Module):
    def forward(self, x):
        wrong = 1 + 50 * (x.mean((1, 2, 3)) - 0.4)
        zeros = torch.zeros(len(x), 10)
        return torch.cat([torch.ones(len(x), 1), zeros, wrong[:, None]], 1)
"""


def test_an_answer_beyond_the_classes_is_drawn_by_its_number(tmp_path):
    (tmp_path / "net.py").write_text(MANY)
    chosen = EvaluationConfig.of(config("evaluation.threat_model.eps=0.2"))
    tree = robust_nas.run_evaluation(chosen, f"{tmp_path / 'net.py'}:Many", tmp_path / "out")
    assert "the model has 12 classes, digits has 10" in str(tree["warnings"])
    rows = (tmp_path / "out" / "figures" / "examples.csv").read_text().splitlines()[1:]
    assert rows
    assert all(row.split(",")[-1] == "output 11" for row in rows)


def test_a_figure_that_failed_is_drawn_on_resume_and_the_record_stays(model, tmp_path, monkeypatch):
    chosen = model_config(model, EVALUATION)

    def fails(*_, **__):
        raise RunError("example 0: no such colour")

    monkeypatch.setattr(AdversarialGrid, "draw", fails)
    with pytest.warns(FigureWarning, match="figure 'examples' is not drawn: example 0: no such colour"):
        tree = robust_nas.run_evaluation(chosen, model, tmp_path / "out")
    before = {
        name: (tmp_path / "out" / name).read_bytes() for name in ("evaluation.json", "environment.json")
    }
    assert read_json(tmp_path / "out" / "result.json")["not_drawn"] == ["examples"]
    monkeypatch.undo()
    attacked = []
    monkeypatch.setattr(robust_nas.attacks.PGD, "__call__", lambda *_: attacked.append(1))
    assert robust_nas.run_evaluation(chosen, model, tmp_path / "out", mode="resume") == tree
    assert (tmp_path / "out" / "figures" / "examples.png").is_file()
    assert "not_drawn" not in read_json(tmp_path / "out" / "result.json")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in before} == before
    assert not attacked
