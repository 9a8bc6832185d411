"""Dry runs: what would be done, measured on real steps; nothing is written, and nothing of a run changes."""

import json

import pytest
from cases import config

import robust_nas
from robust_nas.errors import ConfigError
from robust_nas.integrations import tensorboard_logger
from robust_nas.workflows import dry_run
from robust_nas.workflows.dry_run import dry_run_compress, dry_run_run, dry_run_search, dry_run_train

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1, 1), widths=(4, 8))
IMAGES = 80  # 100 of the limit, without 20 of validation


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """A current folder in which nothing is there, also afterwards."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert list(folder.iterdir()) == []


def jobs(found):
    return {job.job: job for job in found.jobs}


def test_a_training_is_measured_on_its_steps(empty):
    found = dry_run_train(config("training.epochs=3"), TINY, empty / "model")
    (job,) = found.jobs
    cost = robust_nas.count(TINY, (1, 8, 8), 10)
    assert (job.images, job.batch_size, job.epochs, job.steps) == (IMAGES, 40, 3, 6)
    assert (job.params, job.macs, job.network) == (cost.params, cost.macs, "tiny")
    assert job.seconds > 0
    assert (found.folder, found.exists, found.device) == (str(empty / "model"), False, "cpu")
    assert found.memory_bytes > 1e6
    tree = json.loads(json.dumps(found.to_dict()))
    assert tree["estimate"] == {"seconds": job.seconds, "without": []}


def test_the_steps_of_an_estimate_are_those_of_the_loop(monkeypatch, tmp_path):
    """Of a training of one step there is nothing to measure; of longer ones the total is the loop's own."""
    one = dry_run_train(config("training.batch_size=80"), TINY).jobs[0]
    assert (one.steps, one.seconds, one.about) == (1, None, "natural; too few steps to measure")
    seen = []
    robust_nas.train(
        config("training.epochs=3"),
        TINY,
        tmp_path / "model",
        progress=lambda job, done, total, note="": seen.append(total),
    )
    assert dry_run_train(config("training.epochs=3"), TINY).jobs[0].steps == seen[-1] == len(seen)


def test_a_search_is_measured_in_its_first_and_last_epoch(monkeypatch):
    begun = []

    class Kept(dry_run._Steps):
        def __call__(self, job, done, total, note=""):
            begun.append((done, total))
            super().__call__(job, done, total, note)

    monkeypatch.setattr(dry_run, "_Steps", Kept)
    (job,) = dry_run_search(config("search.epochs=3", "search.batch_size=10"), seeds=2).jobs
    assert begun == [(n, 12) for n in (1, 2, 3, 4, 5, 9, 10, 11, 12)]
    assert (job.images, job.batch_size, job.epochs, job.steps) == (IMAGES, 10, 3, 24)
    assert "2 seeds" in job.about
    assert job.seconds > 0


def test_a_search_by_candidates_is_not_estimated():
    made = config(
        'search={"name": "random", "evaluations": 7, "evaluator": {"name": "proxy", "proxy": "macs"}}'
    )
    found = dry_run_search(made)
    assert (found.jobs[0].steps, found.jobs[0].seconds) == (7, None)
    assert found.to_dict()["estimate"] == {"seconds": 0.0, "without": ["search"]}


def test_a_run_has_all_of_its_jobs():
    found = jobs(dry_run_run(config("training.epochs=3")))
    assert list(found) == [
        "search", "train", "evaluate: clean", "evaluate: fgsm", "evaluate: pgd-2", "evaluate: findings"
    ]  # fmt: skip
    assert found["train"].network == "a random one of the space"
    assert all(job.seconds is not None for job in found.values())
    # PGD on half of the images, with start and two steps.
    assert found["evaluate: pgd-2"].seconds != found["evaluate: fgsm"].seconds


def test_a_compression_names_its_steps_and_the_evaluation(tmp_path):
    folder = robust_nas.train(config(), TINY, tmp_path / "model")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    made = robust_nas.compression_config(folder, "cstar")
    found = jobs(dry_run_compress(made, folder))
    assert next(iter(found)) == "compress: cstar"
    assert found["compress: cstar"].params == robust_nas.count(TINY, (1, 8, 8), 10).params
    assert found["evaluate: clean"].seconds > 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_what_a_verb_refuses_its_dry_run_refuses(monkeypatch):
    with pytest.raises(ConfigError, match="drop_path"):
        dry_run_train(config("training.drop_path=0.2"), TINY)
    monkeypatch.setattr(tensorboard_logger.TensorBoard, "needs", ("no_such_package",))
    with pytest.raises(ConfigError, match=r"loggers: tensorboard needs no_such_package"):
        dry_run_train(config("loggers=[tensorboard]"), TINY)


def test_a_dry_run_leaves_an_existing_run_alone(tmp_path):
    folder = robust_nas.train(config(), TINY, tmp_path / "model")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert dry_run_train(config(), TINY, folder).exists
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
