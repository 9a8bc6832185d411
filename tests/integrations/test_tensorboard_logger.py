"""Event files, read back by TensorBoard's own reader: every point once, also after a kill."""

import json

import pytest
from run_configs import Config

from robust_nas.config import Options
from robust_nas.logger import LOGGERS, Logger, scalars_of
from robust_nas.run_folder import METRICS, Run

tensorboard = pytest.importorskip("tensorboard")


class Recipe(Options):
    loggers: tuple[Logger, ...] = (LOGGERS.make("tensorboard"),)


def points(folder):
    """Return name to (step, value) of the events of a run folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "loggers" / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    return {name: [(e.step, e.value) for e in read.Scalars(name)] for name in read.Tags()["scalars"]}


def expected(folder):
    """Return the same of the lines of the run's metrics."""
    found = {}
    for line in (folder / METRICS).read_text().splitlines():
        record = json.loads(line)
        for name, value in scalars_of(record).items():
            found.setdefault(name, []).append((record["epoch"], pytest.approx(value)))
    return found


def work(folder, first, last, *, mode="new", keep=None, end=False, change=0.0, recipe=None):
    """Run epochs; `keep` is the epoch after which a checkpoint is written."""
    with Run(folder, Config(), mode, recipe=Recipe() if recipe is None else recipe) as run:
        if mode == "resume":
            run.load_checkpoint()
        for epoch in range(first, last):
            run.log({"epoch": epoch, "loss": 1 / (epoch + 1) + change, "entropy": {"accurate": epoch / 3}})
            if epoch == keep:
                run.save_checkpoint({"job": "test"})
        if end:
            run.finish({}, [])


def test_the_events_are_the_metrics(tmp_path):
    work(tmp_path / "run", 0, 4, end=True)
    assert points(tmp_path / "run") == expected(tmp_path / "run")
    assert len(points(tmp_path / "run")["loss"]) == 4


@pytest.mark.parametrize("change", [0.0, 0.25])
def test_a_resumed_run_writes_no_point_twice_and_replaces_what_differs(tmp_path, change):
    folder = tmp_path / "run"
    work(folder, 0, 4, keep=1)
    work(folder, 2, 5, mode="resume", keep=3, change=change)
    work(folder, 4, 7, mode="resume", change=change, end=True)
    assert points(folder) == expected(folder)
    assert [step for step, _ in points(folder)["loss"]] == list(range(7))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_an_event_file_that_was_cut_by_a_kill_is_continued(tmp_path, share):
    folder = tmp_path / "run"
    work(folder, 0, 4, keep=3)
    (file,) = (folder / "loggers" / "tensorboard").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    work(folder, 4, 6, mode="resume", end=True)
    assert points(folder) == expected(folder)
    assert len(points(folder)["loss"]) == 6


def test_a_run_that_was_killed_after_its_last_record_logs_what_was_not_in_the_file(tmp_path):
    folder = tmp_path / "run"
    work(folder, 0, 3, keep=2)
    (file,) = (folder / "loggers" / "tensorboard").iterdir()
    file.write_bytes(b"")
    work(folder, 3, 3, mode="resume", end=True)
    assert points(folder) == expected(folder)


def test_a_logger_that_joins_a_run_gets_all_of_it(tmp_path):
    folder = tmp_path / "run"
    work(folder, 0, 2, keep=1, recipe=Recipe(loggers=()))
    work(folder, 2, 3, mode="resume", keep=2)
    work(folder, 3, 4, mode="resume", keep=3, recipe=Recipe(loggers=()))  # which leaves a gap
    work(folder, 4, 5, mode="resume", end=True)
    assert points(folder) == expected(folder)
    assert len(points(folder)["loss"]) == 5


def test_points_keep_the_time_at_which_they_were_made(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"

    def times():
        read = EventAccumulator(str(folder / "loggers" / "tensorboard"))
        return [event.wall_time for event in read.Reload().Scalars("loss")]

    work(folder, 0, 2, keep=1)
    before = times()
    work(folder, 2, 3, mode="resume", end=True)
    assert times()[:2] == before
