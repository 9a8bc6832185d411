"""Networks that learned nothing decide nothing: no rule, contrast, trend, optimum, front or rank correlation."""

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_outcome import Call
from simulated_studies import study
from small_study import TREE, HereEngine, small_study

from robust_nas.errors import DataError
from robust_nas.execution import Ended, Task
from robust_nas.run_folder import read_json, write_json
from robust_nas.statistics import Measurements, interior_optimum, summary
from robust_nas.studies.config import Inherited
from robust_nas.studies.report.analysis import _optimum, analyse
from robust_nas.studies.report.chance import Chance
from robust_nas.studies.report.inherited import inherited_ranks
from robust_nas.studies.rules import RULES, Evidence, verdicts
from robust_nas.studies.run.journal import JOURNAL
from robust_nas.studies.run.runner import report_study, run_study
from robust_nas.studies.run.trial import pack, run_trial

LOST = "mlp-d2-w16"  # the largest, whose answers are a constant's
IMAGES = TREE["evaluation"]["images"]
CONFIG = small_study(seeds=3, figures=[])


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robust_nas.studies.report.page.illustrate", lambda tree, folder, own=(): [])


class Scripted(HereEngine):
    """Trains the first task alone; all others have its outcome with other answers: robust right on two thirds."""

    def run(self, tasks: Sequence[Task], started: Callable[[str, int], None]) -> Iterator[Ended]:
        real = run_trial(tasks[0].payload, tasks[0].folder)
        for task in tasks:
            started(task.id, 1)
            trial = task.payload["trial"]
            lost = (trial["architecture"]["depth"], trial["architecture"]["width"]) == (2, 16)
            yield Ended(
                task.id, {**real, **self.answers(trial["seed"], lost=lost), "trial": task.id}, None, 1, 0.1
            )

    def answers(self, seed: int, *, lost: bool) -> dict[str, Any]:
        clean, robust = (5, 2) if lost else (54 + seed, 40 + seed)
        right = {"clean": clean, "robust": robust, "stable": 50}
        return {
            "seed": seed,
            "outcomes": {key: pack([i < count for i in range(IMAGES)]) for key, count in right.items()},
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of four configurations, of which one learned nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robust_nas.studies.report.page.illustrate", lambda tree, folder, own=(): [])
        return run_study(CONFIG, tmp_path_factory.mktemp("chance") / "study", engine=Scripted())


def without_recorded_chance(folder: Path, copy: Path, **changes: Any) -> Path:
    """Copy a study as an earlier version left it: outcomes without chance."""
    shutil.copytree(folder, copy)
    text = (copy / JOURNAL).read_text()
    for path in (copy / "trials").glob("*/outcome.json"):
        before = hashlib.sha256(path.read_bytes()).hexdigest()
        outcome = {key: value for key, value in read_json(path).items() if key != "chance"}
        path.write_text(json.dumps({**outcome, **changes}))
        text = text.replace(before, hashlib.sha256(path.read_bytes()).hexdigest())
    (copy / JOURNAL).write_text(text)
    return copy


def test_a_rule_over_a_network_that_learned_nothing_is_undecided(folder: Path) -> None:
    tree = read_json(folder / "analysis.json")
    (rule,) = tree["rules"]
    assert rule["rule"] == "more_params"
    assert rule["status"] == "undecided"
    assert f"{LOST} is not shown to be above chance" in rule["reason"]
    assert "clean accuracy 8.3 %" in rule["reason"]
    assert read_json(folder / "result.json")["rules"] == {"more_params": "undecided"}


def test_the_same_rule_over_networks_above_chance_is_decided(tmp_path: Path) -> None:
    class AllLearned(Scripted):
        def answers(self, seed: int, *, lost: bool) -> dict[str, Any]:
            found = super().answers(seed, lost=False)
            worse = pack([i < 20 for i in range(IMAGES)])
            return {**found, "outcomes": {**found["outcomes"], **({"robust": worse} if lost else {})}}

    tree = read_json(run_study(CONFIG, tmp_path / "study", engine=AllLearned()) / "analysis.json")
    assert [rule["status"] for rule in tree["rules"]] == ["supported"]  # the largest is significantly worse
    assert all(each["undecided"] is None for each in (*tree["contrasts"], *tree["trends"]))
    assert all(point["at_chance"] is None for point in tree["points"])
    assert not any("chance" in limit for limit in tree["limits"])


def test_its_contrasts_trends_and_fronts_are_undecided_and_the_others_are_not(folder: Path) -> None:
    tree = read_json(folder / "analysis.json")
    contrasts = {each["a"]: each for each in tree["contrasts"]}
    assert contrasts[LOST]["undecided"].startswith(LOST)
    assert (contrasts[LOST]["p"], contrasts[LOST]["p_holm"], contrasts[LOST]["equivalent"]) == (None,) * 3
    assert contrasts[LOST]["effect"] < 0
    others = [each for name, each in contrasts.items() if name != LOST]
    assert all(each["undecided"] is None and each["p_holm"] is not None for each in others)
    assert [(each["p"], each["undecided"][: len(LOST)]) for each in tree["trends"]] == [(None, LOST)] * 2
    points = {point["name"]: point for point in tree["points"]}
    assert (points[LOST]["on_front"], points[LOST]["pareto"]) == ({}, {})
    assert points["mlp-d1-w8"]["on_front"] == {"params": True, "macs": True}


def test_the_reason_is_in_the_limits_the_table_the_page_and_the_terminal(folder: Path, call: Call) -> None:
    limits = read_json(folder / "analysis.json")["limits"]
    assert limits[0].startswith("1 of 4 configurations are not above chance")
    assert f"{LOST}: clean accuracy 8.3 %" in limits[0]
    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert {row["name"] for row in rows if row["at_chance"]} == {LOST}
    page = (folder / "report.html").read_text()
    assert "not shown to be above chance: mlp-d2-w16" in page
    tree = read_json(folder / "analysis.json")
    withheld = [each for each in (*tree["contrasts"], *tree["trends"]) if each["undecided"]]
    assert page.count("undecided<span") == len(withheld) > 2
    assert "not ranked" in page
    done = call("study", "report", folder, "--quiet")
    assert f"not above chance: {LOST}: clean accuracy 8.3 %" in done.err + done.out
    assert "undecided          more_params: mlp-d2-w16" in done.out


def test_chance_is_the_share_of_the_largest_class_of_the_evaluated_images(folder: Path) -> None:
    from robust_nas.data import load_dataset, random_indices

    outcome = read_json(next((folder / "trials").glob("*/outcome.json")))
    test = load_dataset(CONFIG.data, seed=CONFIG.seed).test
    labels = test.labels[random_indices(len(test), IMAGES, CONFIG.seed)]
    assert outcome["chance"] == int(labels.bincount().max()) / IMAGES > 1 / 10


def test_trials_of_an_earlier_version_are_held_against_their_images_read_again(
    folder: Path, tmp_path: Path
) -> None:
    before = read_json(folder / "analysis.json")
    tree = report_study(without_recorded_chance(folder, tmp_path / "earlier"))
    assert tree["chance"] == before["chance"]
    assert (tree["points"], tree["rules"]) == (before["points"], before["rules"])
    assert "read again" in tree["limits"][1]


def test_without_chance_nothing_is_concluded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = report_study(without_recorded_chance(folder, tmp_path / "other", dataset_checksum="other"))
    assert tree["chance"] is None
    assert "digits holds other images here" in tree["rules"][0]["reason"]
    assert all(each["undecided"] for each in tree["contrasts"])
    assert tree["limits"][0].startswith("No conclusion is drawn, as chance is unknown")

    def missing(options: Any, seed: int) -> None:
        raise DataError("the images are gone")

    monkeypatch.setattr("robust_nas.data.load_dataset", missing)
    tree = report_study(without_recorded_chance(folder, tmp_path / "gone"))
    assert "the images are gone" in tree["rules"][0]["reason"]


FACTORS = {
    **{f"{key}.{stage}": [2] * 7 for key in ("depths", "widths") for stage in (0, 1)},
    "widths.2": [4, 3, 2, 1, 1, 4, 4],
    "depths.2": [2, 2, 2, 2, 1, 2, 2],
    "widths.0": [2] * 5 + [3, 4],
}


def simulated(robust: Sequence[float]) -> list[Measurements]:
    return study(robust, np.random.default_rng(0), FACTORS, seeds=3, images=4000)


def test_a_rule_is_decided_without_the_networks_that_it_is_not_about() -> None:
    points = simulated([0.4, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1])
    unknown = Evidence(points=points, reference="p0")
    judged = [RULES.make("last_stage")]
    assert verdicts(judged, unknown)[0].status == "supported"
    others = Evidence(points=points, reference="p0", at_chance={"p5": "of one", "p6": "of another"})
    (found,) = verdicts(judged, others)
    assert found.status == "supported"
    (alone,) = verdicts(judged, Evidence(points=points[:5], reference="p0"))
    assert found.interval == alone.interval  # their seeds' spread is not pooled either
    for name in ("p0", "p3"):
        (found,) = verdicts(judged, Evidence(points=points, reference="p0", at_chance={name: "of one"}))
        assert (found.status, found.reason.partition(" ")[0]) == ("undecided", name)


def test_a_rule_that_names_no_networks_is_about_all() -> None:
    points = study([0.3, 0.4, 0.5], np.random.default_rng(0), {"params": [1, 2, 3]}, images=1000)
    (found,) = verdicts([RULES.make("more_params")], Evidence(points=points, at_chance={"p2": "of one"}))
    assert found.status == "undecided"


def test_an_optimum_with_a_network_at_chance_on_its_curve_is_not_interior() -> None:
    points = study(
        [0.2, 0.4, 0.5, 0.4, 0.2], np.random.default_rng(0), {"r_d": [0.5, 0.6, 0.7, 0.8, 0.9]}, images=4000
    )
    found = interior_optimum("r_d", points, "robust", "macs")
    sound = _optimum(found, Chance(value=0.1, below={"other": "of one"}))
    assert (sound["interior"], sound["undecided"]) == (True, None)
    lost = _optimum(found, Chance(value=0.1, below={"p4": "of one"}))
    assert (lost["interior"], lost["undecided"].partition(" ")[0]) == (False, "p4")


@pytest.mark.parametrize("clean", [0.1, 0.9])
def test_a_rank_correlation_with_scores_at_chance_is_undecided(tmp_path: Path, clean: float) -> None:
    asked = {"search": "search", "attack": {"steps": 1, "eps": 0.1}, "images": 100}
    config = CONFIG.model_copy(update={"inherited": Inherited.model_validate(asked)})
    genotypes = {"genotype": ["a", "b", "c", "d"]}
    points = study([0.3, 0.4, 0.5, 0.6], np.random.default_rng(0), genotypes, images=1000)
    robust = {"a": 0.5, "b": 0.5, "c": 0.6, "d": 0.7}
    scores = {name: {"clean": 0.9, "robust": value} for name, value in robust.items()}
    scores["b"] |= {"clean": clean, "robust": min(clean, 0.5), "images": 100, "chance": 0.1}
    write_json(tmp_path / "inherited.json", {"options": asked, "scores": scores})
    found = inherited_ranks(tmp_path, points, config, Chance(value=0.1, below={}))
    assert found is not None
    assert found["tau"] is not None
    assert (found["undecided"] is not None) == (clean == 0.1)
    trained = inherited_ranks(tmp_path, points, config, Chance(value=0.1, below={"p3": "of one"}))
    assert trained is not None
    assert trained["undecided"] is not None


def test_every_summary_of_a_configuration_is_made_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str]] = []

    def counted(point: Measurements, key: str, *more: Any, **options: Any) -> Any:
        made.append((point.name, key))
        return summary(point, key, *more, **options)

    monkeypatch.setattr("robust_nas.statistics.summary", counted)
    monkeypatch.setattr("robust_nas.statistics.chance.summary", counted)
    tree = analyse(folder)
    assert len(made) == len(set(made)) == sum(len(point["metrics"]) for point in tree["points"])
    assert tree == read_json(folder / "analysis.json")
