"""Loggers: what they are passed, when; what becomes of one that raises, or whose package is missing."""

import json
from typing import ClassVar

import pytest
from plugins import install
from run_configs import Config

from robust_nas.config import Options
from robust_nas.errors import ConfigError, LoggerWarning
from robust_nas.logger import LOGGERS, Logger, RunLog, refuse_missing, scalars_of
from robust_nas.run_folder import RESULT, Run
from robust_nas.workflows.config import load_config

PLUGIN = """
from robust_nas.config import Options
from robust_nas.logger import Logger, RunLog

class Lines(Logger):
    ending: str = ".txt"

    def start(self, run):
        return Log(run.logs / f"lines{self.ending}")

class Log(RunLog):
    def __init__(self, path):
        self.path = path

    def log(self, step, scalars):
        with self.path.open("a") as file:
            print(step, scalars, file=file)
"""


class Recipe(Options):
    loggers: tuple[Logger, ...] = ()


class Kept(Logger):
    """Keeps what it is passed in a list of the class."""

    calls: ClassVar[list] = []
    fails_at: ClassVar[object] = None

    def start(self, run):
        if self.fails_at == "start":
            raise OSError("no server")
        self.calls.append(("start", run.name.rpartition("/")[2], run.id))
        return KeptLog()


class KeptLog(RunLog):
    def log(self, step, scalars):
        if Kept.fails_at == step:
            raise OSError("no server")
        Kept.calls.append((step, scalars))

    def close(self):
        if Kept.fails_at == "close":
            raise OSError("no server")
        Kept.calls.append("close")


@pytest.fixture
def calls(monkeypatch):
    monkeypatch.setattr(Kept, "calls", [])
    return Kept.calls


def opened(folder, mode="new"):
    return Run(folder, Config(), mode, recipe=Recipe(loggers=(Kept(),)))


def three_records(run):
    for epoch in range(3):
        run.log({"epoch": epoch, "x": 1})
    run.finish({"seed": 0}, [])


def names_of(calls):
    return [call[0] if isinstance(call, tuple) else call for call in calls]


def test_numbers_of_a_record_are_named_by_their_place():
    record = {
        "epoch": 3, "step": 7, "loss": 0.5, "count": 2, "clean": None, "text": "x", "flag": True, "rows": [1, 2],
        "entropy": {"accurate": 1.0, "robust": 2.0},
    }  # fmt: skip
    expected = {"loss": 0.5, "count": 2.0, "entropy/accurate": 1.0, "entropy/robust": 2.0}
    assert scalars_of(record) == expected


def test_a_logger_starts_with_the_first_record_and_is_closed(tmp_path, calls):
    with opened(tmp_path / "run") as run:
        assert calls == []
        run.log({"epoch": 0, "loss": 2.0})
        run.log({"epoch": 1, "loss": 1.0})
    assert names_of(calls) == ["start", 0, 1, "close"]
    assert calls[1][1] == {"loss": 2.0}
    assert calls[0][1] == "run"


def test_steps_come_first_then_epochs_then_the_place_of_a_record(tmp_path, calls):
    with opened(tmp_path / "run") as run:
        run.log({"epoch": 4, "step": 9, "x": 1})
        run.log({"epoch": 5, "x": 1})
        run.log({"candidate": 17, "x": 1})
    assert names_of(calls)[1:-1] == [9, 5, 2]


def test_a_resumed_run_passes_on_what_its_checkpoint_kept_and_then_what_is_new(tmp_path, calls):
    with opened(tmp_path / "run") as run:
        run.log({"epoch": 0, "x": 1})
        run.save_checkpoint({"job": "test"})
        run.log({"epoch": 1, "x": 2})
    first = calls[0]
    calls.clear()
    with opened(tmp_path / "run", "resume") as run:
        run.load_checkpoint()
        run.log({"epoch": 1, "x": 2})
        run.log({"epoch": 2, "x": 3})
    assert names_of(calls) == ["start", 0, 1, 2, "close"]
    assert calls[0] == first  # the same id


def test_a_run_that_was_killed_before_its_end_passes_on_its_records_when_it_ends(tmp_path, calls):
    with Run(tmp_path / "run", Config()) as run:  # without a logger
        run.log({"epoch": 0, "x": 1})
        run.save_checkpoint({"job": "test"})
    with opened(tmp_path / "run", "resume") as run:
        run.load_checkpoint()
        run.finish({}, [])
    assert names_of(calls) == ["start", 0, "close"]


def test_a_run_without_records_starts_no_logger(tmp_path, calls):
    with opened(tmp_path / "run") as run:
        run.finish({}, [])
    assert calls == []
    assert not (tmp_path / "run" / "loggers").exists()


def test_a_run_that_is_overwritten_has_another_id_and_what_loggers_wrote_is_gone(tmp_path, calls):
    with opened(tmp_path / "run") as run:
        run.log({"x": 1})
    other = tmp_path / "run" / "loggers" / "tool" / "any.file"
    other.parent.mkdir()
    other.write_text("of a tool")
    with opened(tmp_path / "run", "overwrite") as run:
        assert not other.exists()
        run.log({"x": 1})
    one, two = (call[2] for call in calls if call[0] == "start")
    assert one != two


@pytest.mark.parametrize(
    ("place", "passed"), [("start", []), (1, ["start", 0]), ("close", ["start", 0, 1, 2])]
)
def test_a_logger_that_raises_is_dropped_with_a_warning_and_the_result_names_it(
    tmp_path, calls, monkeypatch, place, passed
):
    monkeypatch.setattr(Kept, "fails_at", place)
    with opened(tmp_path / "run") as run:
        with pytest.warns(LoggerWarning, match="logger kept: OSError: no server; the run goes on without it"):
            three_records(run)
        assert len(run.records()) == 3
    assert names_of(calls) == passed
    assert json.loads((tmp_path / "run" / RESULT).read_text())["not_logged"] == ["kept: OSError: no server"]


def test_a_missing_package_is_refused_with_the_command_that_adds_it():
    class Absent(Logger):
        needs: ClassVar[tuple] = ("json", "no_such_package")
        install: ClassVar[str] = "pip install no-such-package"

    message = r"absent needs no_such_package, not installed; pip install no-such-package; or leave it out"
    with pytest.raises(ConfigError, match=message):
        refuse_missing([Absent()])
    refuse_missing([Kept()])


def test_a_plugin_is_named_by_an_entry_point_or_by_its_file(tmp_path, monkeypatch):
    (tmp_path / "lines_logger.py").write_text(PLUGIN)
    install(monkeypatch, tmp_path, LOGGERS, "lines", "lines_logger:Lines")
    for name in ("lines", f"{tmp_path}/lines_logger.py:Lines"):
        config = load_config("quickstart", [f"loggers=[{{name: '{name}', ending: .log}}]"])
        folder = tmp_path / name.replace("/", "-")
        with Run(folder, Config(), recipe=config) as run:
            run.log({"epoch": 0, "loss": 2})
        assert (folder / "loggers" / "lines.log").read_text() == "0 {'loss': 2.0}\n"


def test_a_config_without_loggers_is_written_as_before():
    assert "loggers" not in load_config("quickstart").model_dump()
    assert load_config("quickstart", ["loggers=[tensorboard]"]).model_dump()["loggers"]
    with pytest.raises(
        ConfigError, match=r"loggers\.0: got name 'tensorbord'; allowed: tensorboard.*did you mean"
    ):
        load_config("quickstart", ["loggers=[tensorbord]"])
