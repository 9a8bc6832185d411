"""The verdict at the end of a search: from what, when it is made again, and how it shows in cells and summaries."""

import csv
import json
import shutil

import pytest
from cases import config

import robust_nas
from robust_nas import run_search
from robust_nas.errors import ConfigError, RunExistsError
from robust_nas.run_folder import read_json, write_json
from robust_nas.workflows import search_verdict
from robust_nas.workflows.search_job import seeds_of

WORDS = {"FAILED", "CONCLUSIVE", "INCONCLUSIVE"}
WIDE = (  # so that there are networks of equal MACs
    "space.changes.operations=[skip_connect, sep_conv_3x3, dil_conv_3x3, sep_conv_5x5, avg_pool_3x3]",
    "evaluation.findings=none",
)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A search of two seeds, as `search.seeds` asks."""
    return run_search(config("search.seeds=2", *WIDE), tmp_path_factory.mktemp("verdict") / "it's")


def copied(judged, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(judged.folder, folder)
    return folder


def finding(verdict, part):
    return next(one for one in verdict["findings"] if part in one["name"])


def table(folder):
    with (folder / "figures" / "cells.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_search_ends_with_a_verdict_over_its_seeds(judged):
    verdict = judged.verdict
    assert verdict == read_json(judged.folder / "verdict.json", search_verdict.JUDGED)
    assert verdict["status"] in WORDS - {"CONCLUSIVE"}  # it has no controls
    assert [one["seed"] for one in judged.record["per_seed"]] == [5, 6]
    assert not (judged.folder / "seed-5" / "verdict.json").exists()
    control = finding(verdict, "control")
    assert control["status"] == "NOT RUN"
    assert "robust-nas search --resume FOLDER search.controls=3" in control["next_step"]
    assert str(judged.folder) not in (judged.folder / "verdict.json").read_text()  # it may be moved


def test_the_fitness_of_every_seed_is_in_its_record(judged):
    for seed in (5, 6):
        fitness = read_json(judged.folder / f"seed-{seed}" / "result.json")["fitness"]
        assert fitness["images"] == 40
        assert fitness["derived"].keys() == fitness["supernet"].keys() == {"clean", "robust"}
    assert judged.record["fitness"] in (
        read_json(judged.folder / f"seed-{seed}" / "result.json")["fitness"] for seed in (5, 6)
    )


def test_cells_of_every_seed_show_weights_and_the_word(judged):
    for seed in (5, 6):
        folder = judged.folder / f"seed-{seed}"
        rows = table(folder)
        assert {row["verdict"] for row in rows} == {judged.verdict["status"]}
        alphas = read_json(folder / "alphas.json")
        (first,) = [row for row in rows if row["cell"] == "robust" and row["operation"] != "concat"][:1]
        column = alphas["operations"].index(first["operation"])
        assert float(first["weight"]) == alphas["softmax"]["robust"][int(first["source"])][column]
        assert first["noise"] == ""  # two epochs say nothing of it


def test_cells_of_a_longer_search_show_the_noise_that_the_verdict_knows(tmp_path):
    found = run_search(config("search.epochs=5", "search.alphas.learning_rate=0.1"), tmp_path / "run")
    rows = [row for row in table(found.folder) if row["operation"] != "concat"]
    expected = {
        (edge["kind"], 2 + edge["node"], edge["source"]): edge["noise"] for edge in found.verdict["edges"]
    }
    assert len(expected) == 6
    assert expected == {
        (row["cell"], int(row["target"]), int(row["source"])): float(row["noise"]) for row in rows
    }


def test_a_finished_search_is_judged_again_only_where_it_changed(judged, tmp_path, monkeypatch):
    folder = copied(judged, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    asked = config("search.seeds=2", *WIDE)
    again = run_search(asked, folder, mode="resume")
    changed = {path.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    # A repeated search writes the first two again; the report names the folder, which is a copy.
    assert changed - {"result.json", "architecture.yaml", "report.html"} == set()
    assert again.verdict["reasons"] == judged.verdict["reasons"]
    written = [(folder / name).stat().st_mtime_ns for name in ("verdict.json", "report.html")]
    run_search(asked, folder, mode="resume")
    assert [(folder / name).stat().st_mtime_ns for name in ("verdict.json", "report.html")] == written
    (folder / "verdict.json").write_text("damaged")
    (folder / "seed-5" / "figures" / "cells.csv").unlink()
    assert run_search(asked, folder, mode="resume").verdict == again.verdict
    assert read_json(folder / "verdict.json") == again.verdict
    assert table(folder / "seed-5")


def test_a_search_of_an_earlier_version_gets_a_verdict_without_fitness(judged, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(judged.folder / "seed-5", folder)
    result = read_json(folder / "result.json")
    write_json(
        folder / "result.json", {key: result[key] for key in result if key not in ("fitness", "images")}
    )
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({k: v for k, v in line.items() if k != "edge_weights"}) + "\n" for line in lines)
    )
    found = run_search(config(*WIDE), folder, mode="resume")
    assert found.verdict["status"] in WORDS
    assert read_json(folder / "verdict.json") == found.verdict
    assert {row["noise"] for row in table(folder)} == {""}


def test_controls_that_are_added_later_renew_the_verdict(judged, tmp_path):
    folder = copied(judged, tmp_path)
    found = run_search(config("search.controls=1", *WIDE), folder, mode="resume")
    assert finding(found.verdict, "control")["status"] != "NOT RUN"
    assert read_json(folder / "verdict.json") == found.verdict
    kept = run_search(config(*WIDE), folder, mode="resume")  # they are there, whoever asks
    assert finding(kept.verdict, "control") == finding(found.verdict, "control")
    other = robust_nas.load_architecture(folder / "controls" / "random-0" / "architecture.yaml")
    (folder / "controls" / "result" / "architecture.yaml").write_text(other.to_yaml())
    stale = run_search(config(*WIDE), folder, mode="resume")  # as after more seeds with a better result
    assert finding(stale.verdict, "control")["status"] == "NOT RUN"


def test_seeds_of_a_continued_search_are_its_own(judged, tmp_path):
    folder = copied(judged, tmp_path)
    again = run_search(config(*WIDE), folder, mode="resume")
    assert len(again.record["per_seed"]) == 2
    more = run_search(config("search.seeds=3", *WIDE), folder, mode="resume")
    assert len(more.record["per_seed"]) == seeds_of(folder) == 3
    with pytest.raises(RunExistsError, match="seeds: got 1, it has 3"):
        run_search(config(*WIDE), folder, mode="resume", seeds=1)


def test_a_search_of_one_seed_is_not_given_more_without_a_word(judged):
    with pytest.raises(RunExistsError, match=r"seeds: got 3, it has 1; .* or continue it with --seeds 1"):
        run_search(config("search.seeds=3", *WIDE), judged.folder / "seed-5", mode="resume")


@pytest.mark.parametrize("inside", [".", "seed-5"])
def test_a_search_that_has_begun_cannot_gain_short_trainings(judged, inside):
    asked, seeds = config("search.short_trainings=6", *WIDE), 2 if inside == "." else 1
    with pytest.raises(RunExistsError, match=r"search\.short_trainings: got 6, it has 0; .* search again"):
        run_search(asked, judged.folder / inside, mode="resume", seeds=seeds)
    other = config("search.short_trainings=6", "search.batch_size=7", *WIDE)
    with pytest.raises(RunExistsError, match="was started with another config"):
        run_search(other, judged.folder / inside, mode="resume", seeds=seeds)
    assert (judged.folder / inside / "result.json").is_file()


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_seeds_is_refused(value):
    with pytest.raises(ConfigError, match=rf"search\.seeds: got '?{value}"):
        config(f"search.seeds={value}")


def test_the_record_of_a_search_knows_no_number_of_seeds(judged):
    text = (judged.folder / "seed-5" / "config.yaml").read_text()
    assert "seeds" not in text
    assert config("search.seeds=2").search.alone == config().search


def test_a_sampled_search_gets_a_verdict_too(tmp_path):
    proxy = {"name": "proxy", "proxy": "params", "images": 8}
    search = {"name": "random", "cells": 4, "channels": 2, "evaluations": 3, "evaluator": proxy}
    found = run_search(config(f"search={json.dumps(search)}"), tmp_path / "run")
    assert found.verdict["status"] == "INCONCLUSIVE"
    assert "weight" not in table(found.folder)[0]
    assert "fitness" not in found.record


def test_a_run_judges_its_search_after_its_controls(tmp_path, call):
    small = (*WIDE, "search.epochs=1", "search.seeds=2")
    summary = robust_nas.run(config(*small), tmp_path / "run")
    first = read_json(tmp_path / "run" / "search" / "verdict.json")
    assert summary["search_verdict"] == first["status"]
    command = "robust-nas run --resume FOLDER search.controls=3"
    assert command in finding(first, "control")["next_step"]
    chosen = read_json(tmp_path / "run" / "search" / "result.json")["chosen_seed"]
    assert summary["artifacts"]["cells"] == f"search/seed-{chosen}/figures/cells.png"
    assert summary["dataset"] == read_json(tmp_path / "run" / "environment.json")["dataset"]
    robust_nas.run(config(*small, "search.controls=1"), tmp_path / "run", mode="resume")
    second = read_json(tmp_path / "run" / "search" / "verdict.json")
    assert finding(second, "control")["status"] != "NOT RUN"
    with pytest.raises(RunExistsError, match=r"search\.seeds: got 3, its search has 2; .* search\.seeds=2"):
        robust_nas.run(config(*small, "search.seeds=3"), tmp_path / "run", mode="resume")
    shown = call("run", "--resume", tmp_path / "run", "-q")
    assert (shown.code, f"verdict on the search: {second['status']}" in shown.out) == (0, True)


def test_a_search_that_stopped_early_is_judged_by_the_epochs_that_count(judged, tmp_path, monkeypatch):
    folder, seen, judge = copied(judged, tmp_path), [], search_verdict.judge
    path = folder / "seed-5" / "result.json"
    write_json(path, {**read_json(path), "stopped": {"reason": "collapse", "epoch": 0}})

    def watched(evidence):
        seen.append([{record["epoch"] for record in one.records} for one in evidence.seeds])
        return judge(evidence)

    monkeypatch.setattr(search_verdict, "judge", watched)
    run_search(config("search.seeds=2", *WIDE), folder, mode="resume")
    ((stopped, whole),) = seen
    assert stopped == {0}
    assert len(whole) > 1
