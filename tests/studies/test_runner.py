"""Studies that are killed, continued, extended and mistaken: nothing is lost, counted twice or overwritten."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_study import TRIALS, HereEngine, command, environment, small_study, table

from robust_nas.config import to_yaml
from robust_nas.errors import ConfigError, FigureWarning, RobustNASError, RunExistsError, StudyError
from robust_nas.evaluation.verdict import FINDINGS_VERSION
from robust_nas.execution import Ended, LocalEngine, Task
from robust_nas.run_folder import read_json
from robust_nas.studies.run.journal import JOURNAL, read_journal
from robust_nas.studies.run.runner import report_study, run_study, statuses
from robust_nas.studies.run.trial import unpack
from robust_nas.workflows.config import model_config
from robust_nas.workflows.evaluate import run_evaluation


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests here are about trials: their reports are left out, which take longer than the trials."""
    monkeypatch.setattr("robust_nas.studies.report.page.write_report", lambda tree, folder, own=(): None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, run once without any trouble."""
    return run_study(small_study(), tmp_path_factory.mktemp("study") / "whole", engine=HereEngine())


def copied(finished: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-r", str(finished), str(tmp_path / "copy")], check=True)
    return tmp_path / "copy"


def test_every_trial_has_one_row_and_the_invariants_hold(finished: Path) -> None:
    rows = table(finished)
    assert len({(row["name"], row["seed"]) for row in rows}) == len(rows) == TRIALS
    for row in rows:
        assert float(row["robust"]) <= min(float(row["clean"]), float(row["stability"]))
    assert (finished / "report.html").is_file()
    tree = read_json(finished / "analysis.json")
    assert tree["cost"]["done"] == TRIALS
    assert tree["unfinished"] == []
    assert tree["reference"] == "mlp-d1-w16"


def test_the_model_of_a_trial_is_evaluated_by_its_own_protocol(finished: Path, tmp_path: Path) -> None:
    outcome = next((finished / "trials").glob("*/outcome.json"))
    model = outcome.parent / "model"
    tree = run_evaluation(model_config(model), model, tmp_path / "again")
    was = read_json(outcome)
    assert tree["clean"]["correct"] == sum(unpack(was["outcomes"]["clean"], was["images"]))
    assert tree["robust"]["correct"] >= sum(unpack(was["outcomes"]["robust"], was["images"]))


@pytest.mark.slow
def test_killed_workers_and_a_killed_driver_change_nothing(finished: Path, tmp_path: Path) -> None:
    study, out = tmp_path / "study.yaml", tmp_path / "killed"
    study.write_text(to_yaml(small_study()))
    driver = subprocess.Popen(command(study, out), env=environment(), start_new_session=True)

    def events(kind: str) -> list[dict[str, Any]]:
        return [event for event in read_journal(out) if event["event"] == kind]

    def wait_for(reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not reached():
            assert driver.poll() is None, "the driver ended too early"
            assert time.monotonic() < deadline
            time.sleep(0.01)

    wait_for(lambda: len(events("done")) >= 1)
    [server] = children(driver.pid)
    workers = children(server)
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: any(event["attempt"] == 2 for event in events("started")))
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    with (out / JOURNAL).open("ab") as journal:
        journal.write(b'{"event":"done","tri')  # as a kill in mid-write leaves it
    resumed = subprocess.run(
        command(study, out, "--resume"), env=environment(), check=False, capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
    assert table(out) == table(finished)
    assert set(Counter(event["trial"] for event in events("done")).values()) == {1}
    assert any(event["attempt"] == 2 for event in events("started"))  # a killed worker's
    assert len(events("done")) == TRIALS


def children(pid: int) -> list[int]:
    """The processes that a process started: of a driver the fork server, of that the workers."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def test_local_workers_give_the_table_of_this_process(finished: Path, tmp_path: Path) -> None:
    folder = run_study(small_study(), tmp_path / "local", engine=LocalEngine(workers=2))
    assert table(folder) == table(finished)


def test_more_seeds_and_points_run_only_what_is_new(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path)
    engine = HereEngine()
    grid = {"name": "grid", "axes": {"width": [8, 16], "depth": [1, 2]}}
    more = small_study(seeds=[0, 1, 5], space=[grid, {"name": "list", "architectures": [WIDE]}])
    run_study(more, folder, mode="resume", engine=engine)
    assert len(engine.ran) == 4 + 3  # a new seed of four configurations, three seeds of a new one
    before = {(row["name"], row["seed"]): row for row in table(finished)}
    after = {(row["name"], row["seed"]): row for row in table(folder)}
    assert len(after) == TRIALS + 7
    assert all(after[key]["robust"] == row["robust"] for key, row in before.items())
    again = HereEngine()
    run_study(more, folder, mode="resume", engine=again)
    assert again.ran == []


WIDE = {"type": "mlp", "name": "wide", "depth": 1, "width": 24}


def test_failed_and_diverged_trials_are_shown_and_counted(tmp_path: Path) -> None:
    fail = {
        0: {"type": "ValueError", "message": "broken on purpose"},
        1: {"type": "DivergenceError", "message": "the loss is nan"},
    }
    folder = run_study(small_study(), tmp_path / "failing", engine=HereEngine(fail))
    tree = read_json(folder / "analysis.json")
    assert (tree["cost"]["failed"], tree["cost"]["diverged"], tree["cost"]["done"]) == (1, 1, TRIALS - 2)
    assert {row["state"] for row in tree["unfinished"]} == {"failed", "diverged"}
    assert "broken on purpose" in tree["unfinished"][0]["reason"] + tree["unfinished"][1]["reason"]
    assert len(table(folder)) == TRIALS - 2
    assert not (folder / "result.json").exists()
    assert Counter(row["state"] for row in statuses(folder)) == {
        "done": TRIALS - 2,
        "failed": 1,
        "diverged": 1,
    }
    engine = HereEngine()
    run_study(small_study(), folder, mode="resume", engine=engine)
    assert len(engine.ran) == 1  # the failed one; a divergence would be the same again
    assert read_json(folder / "analysis.json")["cost"]["diverged"] == 1


def test_when_every_trial_fails_the_first_reason_is_said(tmp_path: Path) -> None:
    fail = {number: {"type": "MemoryError", "message": "no room"} for number in range(TRIALS)}
    with pytest.raises(StudyError, match="no trial is done; the first one is failed: MemoryError: no room"):
        run_study(small_study(), tmp_path / "failing", engine=HereEngine(fail))
    assert len(read_journal(tmp_path / "failing")) == 2 * TRIALS


def test_an_outcome_that_was_changed_is_not_believed(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path)
    outcome = next((folder / "trials").glob("*/outcome.json"))
    outcome.write_text(outcome.read_text().replace('"clean"', '"clear"', 1))
    failed = next(row for row in statuses(folder) if row["state"] == "failed")
    assert failed["reason"].startswith("outcome.json is missing")
    engine = HereEngine()
    run_study(small_study(), folder, mode="resume", engine=engine)
    assert engine.ran == [outcome.parent.name]
    assert table(folder) == table(finished)


def test_a_study_that_is_there_is_neither_overwritten_nor_mixed(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(RunExistsError, match="exists already"):
        run_study(small_study(), folder, engine=HereEngine())
    other = small_study(name="other", seed=3)
    with pytest.raises(RunExistsError, match=r"holds the study 'small' .* different: name, seed"):
        run_study(other, folder, mode="resume", engine=HereEngine())
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_journal_of_another_code_version_is_refused_before_anything_is_written(
    finished: Path, tmp_path: Path
) -> None:
    folder = copied(finished, tmp_path)
    path = folder / JOURNAL
    path.write_text(path.read_text().replace('"version":1', '"version":0', 1))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(StudyError, match="was written by version 0 of the trials"):
        run_study(small_study(seeds=3), folder, mode="resume", engine=HereEngine())
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_two_drivers_cannot_work_in_one_folder(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path)

    class Second(HereEngine):
        def run(self, tasks: Sequence[Task], started: Callable[[str, int], None]) -> Iterator[Ended]:
            with pytest.raises(RobustNASError, match="another process is working in it"):
                run_study(small_study(), folder, mode="resume", engine=HereEngine())
            yield from super().run(tasks, started)

    run_study(small_study(seeds=3), folder, mode="resume", engine=Second())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guard": {"max_training_macs": 1e6}}, "max_training_macs: 8 trials need"),
        ({"analysis": {"rules": ["last_stage"]}}, "rule 'last_stage' needs the factor 'depths'"),
        ({"analysis": {"rules": ["huang_ratio"]}}, "rule 'huang_ratio' compares arms"),
        ({"space": [{"name": "grid", "axes": {"width": [0]}}]}, "width"),
        ({"space": [{"name": "grid", "axes": {"widht": [4]}}]}, "widht"),
        (
            {
                "space": [
                    {
                        "name": "iso",
                        "budget": "params",
                        "target": 10,
                        "free": {"width": [8, 16]},
                        "along": "depth",
                    }
                ]
            },
            "params",
        ),
    ],
)
def test_what_cannot_be_planned_is_said_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_study(small_study(**changes), tmp_path / "none", engine=HereEngine())
    assert not (tmp_path / "none").exists()


def test_a_metric_that_a_rule_needs_and_that_is_not_measured_is_said_at_once() -> None:
    metrics = {"attack": {"steps": 3}, "images": 30}
    with pytest.raises(ConfigError, match="zhu_init needs average_sensitivity, which is not measured"):
        small_study(metrics=metrics, analysis={"rules": ["zhu_init"]})


def test_a_study_that_would_take_longer_than_the_guard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"max_hours: 8 trials need about .* the guard allows 1e-07"):
        run_study(small_study(guard={"max_hours": 1e-7}), tmp_path / "none", engine=LocalEngine())
    assert not (tmp_path / "none").exists()


def test_a_reference_without_an_outcome_is_said_and_nothing_is_held_against_it(tmp_path: Path) -> None:
    diverged = {"type": "DivergenceError", "message": "the loss is nan"}

    class WithoutReference(HereEngine):
        def run(self, tasks: Sequence[Task], started: Callable[[str, int], None]) -> Iterator[Ended]:
            for end in super().run(tasks, started):
                place = [task.id for task in tasks].index(end.id)
                wanted = tasks[place].payload["trial"]["architecture"]
                reference = (wanted["depth"], wanted["width"]) == (1, 16)
                yield end._replace(result=None, error=diverged) if reference else end

    tree = read_json(
        run_study(small_study(), tmp_path / "study", engine=WithoutReference()) / "analysis.json"
    )
    assert (tree["reference"], tree["contrasts"]) == ("mlp-d1-w16", [])
    assert tree["limits"][0] == "The reference mlp-d1-w16 has no outcome: nothing is held against it."
    assert tree["cost"]["diverged"] == 2


def test_rules_that_are_changed_after_trials_are_not_called_declared(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path)
    changed = small_study(analysis={"draws": 200, "rules": [], "response": "clean"})
    run_study(changed, folder, mode="resume", engine=HereEngine())
    limits = read_json(folder / "analysis.json")["limits"]
    assert any(
        limit.startswith("analysis.response, analysis.rules changed when 8 trials") for limit in limits
    )
    run_study(changed, folder, mode="resume", engine=HereEngine())
    assert len([event for event in read_journal(folder) if event["event"] == "changed"]) == 1


def test_verdicts_of_other_findings_are_said_not_to_be_alike(finished: Path, tmp_path: Path) -> None:
    class Earlier(HereEngine):
        def run(self, tasks: Sequence[Task], started: Callable[[str, int], None]) -> Iterator[Ended]:
            for end in super().run(tasks, started):
                assert end.result is not None
                assert end.result["findings_version"] == FINDINGS_VERSION
                old = {key: value for key, value in end.result.items() if key != "findings_version"}
                yield end._replace(result=old) if end.id == tasks[0].id else end

    folder = run_study(small_study(), tmp_path / "study", engine=Earlier())
    mixed, alike = (read_json(place / "analysis.json")["limits"] for place in (folder, finished))
    assert any(f"findings of versions 1 and {FINDINGS_VERSION}" in limit for limit in mixed)
    assert not any("findings of versions" in limit for limit in alike)


def test_a_trial_on_other_images_has_failed(tmp_path: Path) -> None:
    class Elsewhere(HereEngine):
        def run(self, tasks: Sequence[Task], started: Callable[[str, int], None]) -> Iterator[Ended]:
            for end in super().run(tasks, started):
                assert end.result is not None
                other = end.result["seed"] == 1
                yield end._replace(result={**end.result, "dataset_checksum": "other"}) if other else end

    tree = read_json(run_study(small_study(), tmp_path / "study", engine=Elsewhere()) / "analysis.json")
    assert (tree["cost"]["done"], tree["cost"]["failed"]) == (4, 4)
    assert "digits holds other images where the trial ran than here" in tree["unfinished"][0]["reason"]


class _NoRoom(HereEngine):
    """An engine that finds out late that no task can run."""

    def run(self, tasks: Sequence[Task], started: Callable[[str, int], None]) -> Iterator[Ended]:
        raise ConfigError("no node has room")
        yield


class _NoCluster(HereEngine):
    """An engine that nobody answers."""

    def refuse_unreachable(self) -> None:
        raise ConfigError("no cluster there")


@pytest.mark.parametrize("engine", [_NoRoom(), _NoCluster()])
def test_an_engine_that_runs_no_trial_leaves_no_folder(
    engine: HereEngine, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no node has room|no cluster there"):
        run_study(small_study(seeds=1), tmp_path / "study", engine=engine)
    assert not (tmp_path / "study").exists()
    folder = copied(finished, tmp_path)
    if isinstance(engine, _NoRoom):
        with pytest.raises(ConfigError, match="no node has room"):
            run_study(small_study(seeds=2), folder, mode="resume", engine=engine)
    assert table(folder) == table(finished)  # the work of an earlier call stays


def test_a_report_that_fails_is_a_warning_and_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robust_nas.studies.report import page

    def fails(*_: Any) -> Path:
        raise ZeroDivisionError("no page")

    with monkeypatch.context() as patched:
        patched.setattr(page, "write_report", fails)
        with pytest.warns(FigureWarning, match="'report' is not drawn: ZeroDivisionError: no page"):
            run_study(small_study(seeds=1), tmp_path / "study", engine=HereEngine())
    assert len(table(tmp_path / "study")) == TRIALS // 2
    report_study(tmp_path / "study")


def test_a_folder_without_a_study_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no study"):
        report_study(tmp_path)


def test_the_report_can_be_written_while_trials_are_missing(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path)
    lines = (folder / JOURNAL).read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["event"] != "done"] + [
        line for line in lines if json.loads(line)["event"] == "done"
    ][:3]
    (folder / JOURNAL).write_text("".join(kept))
    tree = report_study(folder)
    assert tree["cost"]["done"] == 3
    assert len(tree["unfinished"]) == TRIALS - 3
    assert any("have no outcome" in limit for limit in tree["limits"])
