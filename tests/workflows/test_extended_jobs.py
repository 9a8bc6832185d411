"""What `--resume` may change: the machine's settings, more epochs, more seeds, steps of a run that have not begun."""

import json
import shutil

import pytest
import torch
from cases import config

import robust_nas
from robust_nas.attacks.batch_generator import BatchGenerator
from robust_nas.config import read_yaml
from robust_nas.errors import NothingToCompressError, RunExistsError
from robust_nas.workflows import pipeline, search, search_job
from robust_nas.workflows import train as train_job

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1, 1), widths=(4, 8))
STEPS = "training.schedule={name: piecewise, milestones: [3]}"


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


# Training


def test_a_training_with_more_epochs_is_that_which_had_them_from_the_start(tmp_path):
    robust_nas.train(config(STEPS, "training.epochs=2"), TINY, tmp_path / "grown")
    grown = robust_nas.train(config(STEPS, "training.epochs=4"), TINY, tmp_path / "grown", mode="resume")
    whole = robust_nas.train(config(STEPS, "training.epochs=4"), TINY, tmp_path / "whole")
    assert weights(grown) == weights(whole)
    assert (grown / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert [
        each["before"]["training"]["epochs"] for each in read_yaml(grown / "config.yaml")["extended"]
    ] == [2]
    # The first request is answered by it.
    robust_nas.train(config(STEPS, "training.epochs=2"), TINY, tmp_path / "grown", mode="resume")
    assert weights(grown) == weights(whole)


@pytest.mark.parametrize(
    ("first", "more", "why"),
    [
        (
            [],
            [],
            r"training.schedule \(cosine\) depends on it: .*one that starts with training.schedule=piecewise may",
        ),
        ([STEPS, "training.epochs=4"], [STEPS, "training.epochs=3"], "it had more"),
        ([STEPS], [STEPS, "training.momentum=0.5"], "different: .*training.momentum"),
        (
            [STEPS, "training.validate_every=2"],
            [STEPS, "training.validate_every=2"],
            "training.validate_every depends",
        ),
    ],
)
def test_more_epochs_are_refused_where_the_recipe_depends_on_them(tmp_path, first, more, why):
    robust_nas.train(config("training.epochs=2", *first), TINY, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("model/*.*")}
    with pytest.raises(RunExistsError, match=why):
        robust_nas.train(config("training.epochs=5", *more), TINY, tmp_path / "model", mode="resume")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("model/*.*")} == before


def test_the_settings_of_the_machine_may_change(tmp_path):
    first = robust_nas.train(config("device=cpu", "threads=1"), TINY, tmp_path / "model")
    (first / "result.json").unlink()
    made = weights(first)
    other = config("device=auto", "threads=2", "checkpoint_seconds=7")
    robust_nas.train(other, TINY, tmp_path / "model", mode="resume")
    assert weights(first) == made
    assert read_yaml(first / "recipe.yaml")["threads"] == 2


def test_draws_of_another_kind_of_device_seed_those_of_this_one():
    """The state of a CUDA generator has 16 bytes, that of a CPU's thousands."""
    drawn = []
    for first in (1, 1, 2):
        generator = BatchGenerator("cpu")
        generator.restore(torch.tensor([first, *range(15)], dtype=torch.uint8))
        drawn.append(torch.rand(3, generator=generator).tolist())
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


# Search


def test_a_search_of_two_seeds_becomes_one_of_three(tmp_path, monkeypatch):
    robust_nas.run_search(config(), tmp_path / "grown", seeds=2)
    kept = (tmp_path / "grown" / "seed-5" / "checkpoint.pt").read_bytes()
    grown = robust_nas.run_search(config(), tmp_path / "grown", seeds=3, mode="resume")
    whole = robust_nas.run_search(config(), tmp_path / "whole", seeds=3)
    assert (tmp_path / "grown" / "seed-5" / "checkpoint.pt").read_bytes() == kept
    assert grown.architecture == whole.architecture
    assert [each["params"] for each in grown.record["per_seed"]] == [
        each["params"] for each in whole.record["per_seed"]
    ]
    assert search_job.seeds_of(tmp_path / "grown") == 3
    monkeypatch.setattr(search, "_search_once", lambda *_: pytest.fail("it was finished"))
    again = robust_nas.run_search(config(), tmp_path / "grown", seeds=2, mode="resume")
    assert len(again.record["per_seed"]) == 3
    with pytest.raises(RunExistsError, match="got 1, it has 3"):
        robust_nas.run_search(config(), tmp_path / "grown", seeds=1, mode="resume")
    with pytest.raises(RunExistsError, match="got 2, it has 1"):
        robust_nas.run_search(config(), tmp_path / "grown" / "seed-5", seeds=2, mode="resume")
    with pytest.raises(RunExistsError, match=r"different: .*search"):
        robust_nas.run_search(config("search.epochs=5"), tmp_path / "grown", seeds=4, mode="resume")


# A whole run

BASE = (STEPS, "evaluation.images=30")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    robust_nas.run(config(*BASE), folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_a_step_that_has_not_begun_may_change(run, monkeypatch):
    for part in ("model", "evaluation", "export"):
        shutil.rmtree(run / part)
    (run / "result.json").unlink()
    found = (run / "search" / "architecture.yaml").read_bytes()
    monkeypatch.setattr(search, "_search_once", lambda *_: pytest.fail("it was finished"))
    robust_nas.run(config(*BASE, "training.momentum=0.5"), run, mode="resume")
    assert (run / "search" / "architecture.yaml").read_bytes() == found
    assert read_yaml(run / "model" / "config.yaml")["training"]["momentum"] == 0.5
    assert read_yaml(run / "config.yaml")["extended"][0]["before"]["training"]["momentum"] == 0.9


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("training.momentum=0.5", r"model: was made with another config.*different: training.momentum\."),
        ("search.epochs=5", r"search: was made with.*different: search.epochs\."),
        (
            "evaluation.threat_model.eps=0.05",
            r"evaluation: was made with.*different: .*evaluation.threat_model.eps",
        ),
        (
            "training.epochs=9",
            r"model: was made with.*different: training.epochs\.",
        ),
    ],
)
def test_a_step_that_was_made_may_not(run, change, why):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RunExistsError, match=why):
        robust_nas.run(config(*BASE, change), run, mode="resume")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_finished_run_is_given_more_test_images(run, monkeypatch):
    monkeypatch.setattr(train_job, "_train_once", lambda *_: pytest.fail("it was finished"))
    summary = robust_nas.run(config(*BASE, "evaluation.images=50"), run, mode="resume")
    assert summary["images_clean"] == 50
    assert json.loads((run / "summary.json").read_text()) == summary
    monkeypatch.setattr(pipeline, "_all_jobs", lambda *_: pytest.fail("it was finished"))
    for asked in (config(*BASE, "evaluation.images=50"), config(*BASE)):
        assert robust_nas.run(asked, run, mode="resume") == summary


def killed(*_):
    raise KeyboardInterrupt


def test_killed_before_its_step_an_extension_is_not_taken_for_done(run, monkeypatch):
    more = config(*BASE, "evaluation.images=50")
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "_all_jobs", killed)
        with pytest.raises(KeyboardInterrupt):
            robust_nas.run(more, run, mode="resume")
    summary = robust_nas.run(config(*BASE), run, mode="resume")
    assert summary["images_clean"] == 50  # as the run's config says
    assert robust_nas.run(more, run, mode="resume") == summary
    assert read_yaml(run / "recipe.yaml")["evaluation"]["images"] == 50


def test_what_was_replaced_before_it_began_is_no_answer_to_the_first_request(run):
    for part in ("model", "evaluation", "export"):
        shutil.rmtree(run / part)
    (run / "result.json").unlink()
    robust_nas.run(config(*BASE, "training.momentum=0.5"), run, mode="resume")
    with pytest.raises(RunExistsError, match=r"model: was made with another config.*training.momentum\."):
        robust_nas.run(config(*BASE), run, mode="resume")


def test_a_run_records_the_attacks_that_its_evaluation_has(run):
    other = "evaluation.attacks=[{attack: {name: pgd, steps: 1}}]"
    summary = robust_nas.run(config(*BASE, other), run, mode="resume")
    assert summary["attack"] == "fgsm + pgd-2 + pgd-1"
    for folder in (run, run / "evaluation"):
        assert len(read_yaml(folder / "config.yaml")["steps"]) == 3


def test_an_evaluation_that_was_extended_by_itself_is_in_the_summary(run, monkeypatch):
    more = config(*BASE, "evaluation.images=50")
    robust_nas.run_evaluation(more, run / "model", run / "evaluation", mode="resume")
    summary = robust_nas.run(config(*BASE), run, mode="resume")
    assert summary["images_clean"] == 50
    monkeypatch.setattr(pipeline, "_all_jobs", lambda *_: pytest.fail("it was finished"))
    assert robust_nas.run(config(*BASE), run, mode="resume") == summary


def test_an_extension_of_a_run_that_fails_leaves_it_finished(run):
    before = (run / "config.yaml").read_bytes(), (run / "summary.json").read_bytes()
    with pytest.raises(NothingToCompressError):
        robust_nas.run(config(*BASE, "compression={gdws: {betas: [0.5]}}"), run, mode="resume")
    assert ((run / "config.yaml").read_bytes(), (run / "summary.json").read_bytes()) == before
    assert (run / "result.json").is_file()
    robust_nas.run(config(*BASE), run, mode="resume")


# By the folder


def test_a_folder_is_continued_by_its_name(call, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "results" / "mine")
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "evaluation")
    outcome = call("run", "--resume", "results/mine", "threads=1", "--json", "-q")
    assert outcome.code == 0, outcome.err
    assert (folder / "evaluation" / "evaluation.json").is_file()
    assert not (tmp_path / "results" / "tiny").exists()
    assert call("train", "--resume", "results/mine/model", "training.epochs=3", "--json", "-q").code == 0
    assert len((folder / "model" / "metrics.jsonl").read_text().splitlines()) == 3
    assert "of 3" in call("train", "--resume", "results/mine/model", "training.epochs=1", "-q").out
    outcome = call("search", "--resume", "results/mine/search", "--json", "-q")
    assert (outcome.code, json.loads(outcome.out)["folder"]) == (0, "results/mine/search")
    assert call("run", "--resume", "results/none").err.count("nor a folder with a recipe.yaml") == 1
    assert call("run", "results/mine", "--out", "results/other", "seed=6", "--print-config").code == 0
