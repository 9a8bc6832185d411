"""Runs as a table: what each is and measured, broken ones too; compared image by image; removed safely."""

import fcntl
import json
import shutil
import sys

import numpy as np
import pandas
import pytest
from cases import config

import robust_nas
from robust_nas.errors import ConfigError, RunError, RunExistsError
from robust_nas.statistics.contrasts import contrast
from robust_nas.statistics.measurements import Measurements
from robust_nas.workflows.run_table import VERBS, RunRow, list_runs, remove_run, row_of

NETWORK = robust_nas.MLPArchitecture(name="mlp", depth=1, width=16)
SETTINGS = (
    *("training.epochs=4", "training.loss=natural", "evaluation.suite=null", "evaluation.findings=none"),
    "evaluation.attacks=[{attack: {name: fgsm}}]",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder of three runs: two evaluated trainings, on other numbers of images, and an unfinished one."""
    root = tmp_path_factory.mktemp("results")
    for name, more in (("a", ("evaluation.images=60",)), ("b", ("seed=1", "evaluation.images=80"))):
        recipe = config(*SETTINGS, *more, f"name={name}")
        robust_nas.train(recipe, NETWORK, root / name)
        robust_nas.run_evaluation(recipe, root / name)
    shutil.copytree(root / "a", root / "group" / "c")
    for name in ("result.json", "model.safetensors"):
        (root / "group" / "c" / name).unlink()
    shutil.rmtree(root / "group" / "c" / "evaluation")
    return root


def test_the_rows_are_what_the_records_say(runs):
    a, b, c = list_runs(runs)
    record = json.loads((runs / "a" / "evaluation" / "evaluation.json").read_text())
    trained = json.loads((runs / "a" / "result.json").read_text())
    assert (a.verb, a.state, a.name, a.data, a.seed) == ("train", "done", "a", "digits", 5)
    assert (a.clean, a.robust) == (record["clean"]["accuracy"], record["robust"]["accuracy"])
    assert (a.macs, a.seconds) == (trained["macs"], trained["seconds"])
    assert (b.seed, c.state, c.verb) == (1, "unfinished", "train")
    assert row_of(runs / "a" / "evaluation")[1:3] == ("evaluate", "done")


def test_the_parts_of_a_run_are_listed_where_asked_for(runs, call):
    found = list_runs(runs, parts=True)
    assert [(row.folder, row.verb) for row in found] == [
        (str(runs / "a"), "train"),
        (str(runs / "a" / "evaluation"), "evaluate"),
        (str(runs / "b"), "train"),
        (str(runs / "b" / "evaluation"), "evaluate"),
        (str(runs / "group" / "c"), "train"),
    ]
    assert "3 runs in" in (out := call("runs", "list", runs).out)
    assert "--parts lists the parts of runs too" in out
    assert len(json.loads(call("runs", "list", runs / "a", "--parts", "--json").out)) == 2


def test_the_table_is_a_data_frame(runs, monkeypatch):
    rows, frame = list_runs(runs, sort="-clean"), robust_nas.runs(runs, sort="-clean")
    assert list(frame.columns) == list(RunRow._fields)
    for column in RunRow._fields:
        found = [None if pandas.isna(value) else value for value in frame[column]]
        assert found == [getattr(row, column) for row in rows], column
    assert frame["seed"].dtype == "Int64"
    assert robust_nas.runs(runs, verb="search").empty
    with pytest.raises(ConfigError, match="sort: got"):
        robust_nas.runs(runs, sort="robus")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"pandas is not installed; pip install pandas .*list_runs"):
        robust_nas.runs(runs)


def test_rows_are_kept_sorted_and_wrong_words_refused(runs):
    assert [row.name for row in list_runs(runs, state="done", sort="-seed")] == ["a", "b"]
    assert list_runs(runs, data="cifar10") == []
    assert [row.state for row in list_runs(runs, sort="-clean")][-1] == "unfinished"  # it has no accuracy
    with pytest.raises(ConfigError, match=r"sort: got 'robus'; allowed: .*did you mean 'robust'"):
        list_runs(runs, sort="robus")
    with pytest.raises(ConfigError, match=r"state: got 'finished'; .*allowed: done, running"):
        list_runs(runs, state="finished")
    with pytest.raises(ConfigError, match="is no folder"):
        list_runs(runs / "none")


@pytest.mark.parametrize(
    ("file", "text"),
    [("result.json", "{"), ("environment.json", "[]"), ("config.yaml", ""), ("config.yaml", b"\xff\xfe")],
)
def test_a_damaged_run_is_listed_as_broken(runs, tmp_path, file, text):
    shutil.copytree(runs / "a", tmp_path / "a")
    (tmp_path / "a" / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    (row,) = list_runs(tmp_path)
    assert row.state == "broken"
    assert file in row.problem


def test_a_run_in_use_is_running_and_not_removed(runs, tmp_path):
    shutil.copytree(runs / "group" / "c", tmp_path / "c")
    with (tmp_path / "c" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert list_runs(tmp_path)[0].state == "running"
        with pytest.raises(RunError, match="a process may work in it"):
            remove_run(tmp_path / "c")
    assert list_runs(tmp_path)[0].state == "unfinished"
    (tmp_path / "c" / "notes.txt").write_text("mine")
    with pytest.raises(RunExistsError, match=r"holds what no run wrote.*: notes\.txt"):
        remove_run(tmp_path / "c")
    (tmp_path / "c" / "notes.txt").unlink()
    remove_run(tmp_path / "c")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RunExistsError, match="so it is none"):
        remove_run(tmp_path)


def test_finished_work_and_the_folder_one_is_in_are_never_removed(runs, tmp_path, monkeypatch):
    shutil.copytree(runs / "a", tmp_path / "a")
    (tmp_path / "a" / "result.json").write_text("{")  # damaged, but the weights are there
    with pytest.raises(RunExistsError, match=r"holds finished work.*model\.safetensors"):
        remove_run(tmp_path / "a")
    shutil.copytree(runs / "group" / "c", tmp_path / "c")
    monkeypatch.chdir(tmp_path / "c")
    with pytest.raises(RunExistsError, match="is where you are"):
        remove_run(".")
    assert (tmp_path / "c" / "config.yaml").is_file()


def test_what_is_gone_is_not_done_and_a_folder_without_permission_hides_no_other(runs, tmp_path, monkeypatch):
    for name in ("a", "b"):
        shutil.copytree(runs / name, tmp_path / name)
    (tmp_path / "a" / "model.safetensors").unlink()
    iterdir = type(tmp_path).iterdir
    (tmp_path / "closed").mkdir()

    def refused(path):
        if path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(type(tmp_path), "iterdir", refused)
    assert [row.state for row in list_runs(tmp_path)] == ["unfinished", "done", "broken"]


def answers(folder):
    tree = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    wrong = set(tree["clean"]["wrong_indices"])
    broken = {index for attack in tree["attacks"] for index in attack["broken_indices"]}
    return wrong, wrong | broken


def test_a_comparison_is_the_paired_test_on_the_images_that_both_took(runs):
    found = robust_nas.compare_runs([runs / "a", runs / "b"])
    assert found.config["seed"] == [5, 1]
    assert found.config["name"] == ["a", "b"]
    (pair,) = found.pairs
    from robust_nas.data import random_indices

    orders = [set(random_indices(360, count, seed).tolist()) for count, seed in ((60, 5), (80, 1))]
    both = sorted(orders[0] & orders[1])
    assert 0 < len(both) < 60
    for number, key in enumerate(("clean", "robust")):
        points = [
            Measurements(
                name=name,
                seeds=(0,),
                outcomes={key: np.array([[index not in answers(runs / name)[number] for index in both]])},
            )
            for name in ("b", "a")
        ]
        expected = contrast(*points, key)
        ours = pair.contrasts[key]
        assert (ours.effect, ours.interval, ours.p, ours.images) == (
            expected.effect,
            expected.interval,
            expected.p,
            len(both),
        )
        assert ours.p_holm == ours.p  # one pair


def test_what_cannot_be_paired_says_why(runs, tmp_path):
    shutil.copytree(runs / "a", tmp_path / "other")
    path = tmp_path / "other" / "evaluation" / "evaluation.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "threat_model": {**tree["threat_model"], "eps": 0.3}}))
    (pair,) = robust_nas.compare_runs([runs / "a", tmp_path / "other"]).pairs
    assert list(pair.contrasts) == ["clean"]
    assert "other threat models: linf 0.3 and linf" in pair.notes[0]
    tested = tree["tested"]
    path.write_text(json.dumps({**tree, "tested": {**tested, "test_checksum": "0"}}))
    assert "other images" in robust_nas.compare_runs([runs / "a", tmp_path / "other"]).pairs[0].why_not
    path.write_text(json.dumps({**tree, "tested": {**tested, "checksum": "0"}}))  # trained on other images
    assert robust_nas.compare_runs([runs / "a", tmp_path / "other"]).pairs[0].contrasts
    older = {key: value for key, value in tested.items() if key != "test_checksum"}
    path.write_text(json.dumps({**tree, "tested": {**older, "checksum": "0"}}))
    assert "other images" in robust_nas.compare_runs([runs / "a", tmp_path / "other"]).pairs[0].why_not
    path.unlink()
    assert "no evaluation.json" in robust_nas.compare_runs([runs / "a", tmp_path / "other"]).pairs[0].why_not
    with pytest.raises(ConfigError, match="at least two different folders"):
        robust_nas.compare_runs([runs / "a", runs / "a"])
    with pytest.raises(ConfigError, match="is no run"):
        robust_nas.compare_runs([runs / "a", tmp_path])


def test_the_commands(call, runs, tmp_path):
    shutil.copytree(runs, tmp_path / "results")
    listed = call("runs", "list", tmp_path / "results", "--verb", "train")
    assert listed.code == 0, listed.err
    assert "group/c" in listed.out
    rows = json.loads(call("runs", "list", tmp_path / "results", "--json").out)
    assert [row["state"] for row in rows] == ["done", "done", "unfinished"]
    assert call("runs", "list", tmp_path / "results", "--csv").out.count("\n") == 4
    shown = call("runs", "show", tmp_path / "results" / "a")
    assert "model.safetensors" in shown.out
    compared = call("runs", "compare", tmp_path / "results" / "a", tmp_path / "results" / "b")
    assert compared.code == 0, compared.err
    assert "on the images that both took" in compared.out
    removed = call("runs", "clean", tmp_path / "results", "--yes")
    assert removed.code == 0, removed.err
    assert not (tmp_path / "results" / "group" / "c").exists()
    assert (tmp_path / "results" / "a").exists()
    assert call("runs", "clean", tmp_path / "results").out == "removed 0\n"


def test_every_job_is_known_by_its_sections():
    from robust_nas.workflows.compress import CompressJob
    from robust_nas.workflows.defend import DefendJob
    from robust_nas.workflows.distill import DistillJob
    from robust_nas.workflows.evaluate import EvaluateJob
    from robust_nas.workflows.rank import RankJob
    from robust_nas.workflows.run_job import RunJob
    from robust_nas.workflows.search_job import SearchJob, SeedsJob
    from robust_nas.workflows.train import TrainJob
    from robust_nas.workflows.train_attack import TrainAttackJob

    jobs = {
        "run": [RunJob],
        "compress": [CompressJob],
        "evaluate": [EvaluateJob],
        "attack train": [TrainAttackJob],
        "defend": [DefendJob],
        "distill": [DistillJob],
        "rank": [RankJob],
        "search": [SearchJob, SeedsJob],
        "train": [TrainJob],
        "study": [robust_nas.StudyConfig],
    }
    assert jobs.keys() == {verb for verb, _ in VERBS}
    for verb, classes in jobs.items():
        for job in classes:
            assert next(name for name, keys in VERBS if keys <= job.model_fields.keys()) == verb
