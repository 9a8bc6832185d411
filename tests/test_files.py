"""Files appear complete or not at all, by one naming scheme, and only ours are ever removed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_configs import Config, files

from robust_nas.errors import RunError, RunExistsError
from robust_nas.files import LOCK, foreign, is_temporary, sweep, write_atomic, write_together
from robust_nas.run_folder import CONFIG, Run


@pytest.fixture(scope="module")
def dead() -> int:
    """Return the number of a process that ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_next_writer_removes_what_a_dead_one_left_of_this_file_alone(tmp_path: Path, dead: int) -> None:
    own = f".x.csv.{dead}.tmp"
    others = {f".y.csv.{dead}.tmp", f".x.csv.{os.getppid()}.tmp", ".x.csv.new", ".x.csv.mine.tmp"}
    for name in {own, *others}:
        (tmp_path / name).touch()
    write_atomic(tmp_path / "x.csv", b"1")
    assert names(tmp_path) == {"x.csv", *others}


def test_files_that_belong_together_are_written_before_one_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "network.py", tmp_path / "weights.pt"
    write_together({one: b"1", other: b"1"})
    (tmp_path / ".network.py.new").write_text("the user's")
    with pytest.raises(RunError, match=r"missing/weights\.pt: cannot be written: No such file"):
        write_together({one: b"2", tmp_path / "missing" / "weights.pt": b"2"})
    assert files(tmp_path) == {"network.py": b"1", "weights.pt": b"1", ".network.py.new": b"the user's"}
    real = os.replace

    def killed(source: Path, target: Path) -> None:
        if target == other:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_together({one: b"2", other: b"2"})
    assert files(tmp_path) == {"network.py": b"2", ".network.py.new": b"the user's"}


def test_a_run_sweeps_all_folders_but_those_of_runs_inside(tmp_path: Path) -> None:
    with Run(tmp_path, Config()):
        for name in ("figures", "export", "inner", "figures/deep"):
            (tmp_path / name).mkdir()
        (tmp_path / "inner" / LOCK).touch()
        for name in ("", "figures", "export", "inner", "figures/deep"):
            (tmp_path / name / ".x.csv.1.tmp").touch()
        (tmp_path / "figures" / f".x.csv.{'a' * 32}.part").touch()  # of an earlier version
        (tmp_path / ".model.7.tmp").mkdir()
        (tmp_path / ".model.7.tmp" / LOCK).touch()
        (tmp_path / ".notes.tmp").touch()
    with Run(tmp_path, Config(), "resume"):
        left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob(".*"))
    assert left == [LOCK, ".notes.tmp", f"inner/{LOCK}", "inner/.x.csv.1.tmp"]


def test_a_sweep_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / ".x.1.tmp").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link").symlink_to(tmp_path / "outside")
    sweep(tmp_path / "run")
    assert (tmp_path / "outside" / ".x.1.tmp").exists()


@pytest.mark.parametrize(
    "name", ["thesis.txt", "notes/plan.md", "figures/mine.pdf", ".network.py.new", "a.png"]
)
def test_an_overwrite_refuses_files_that_no_run_wrote(tmp_path: Path, name: str) -> None:
    with Run(tmp_path, Config()) as run:
        run.save_checkpoint({})
        run.write("own.json", "{}")
        run.finish({}, ["own.json"])
        (tmp_path / "figures").mkdir()
        (tmp_path / "figures" / "a.png").touch()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = files(tmp_path)
    with pytest.raises(RunExistsError, match=f"--overwrite would remove: {name}; move it away"):
        Run(tmp_path, Config(seed=1), "overwrite")
    assert files(tmp_path) == before
    (tmp_path / name).unlink()
    with Run(tmp_path, Config(seed=1), "overwrite"):
        assert set(files(tmp_path)) == {CONFIG}


def test_many_foreign_files_are_counted(tmp_path: Path) -> None:
    with Run(tmp_path, Config()):
        for number in range(9):
            (tmp_path / f"{number}.txt").touch()
    assert len(list(foreign(tmp_path))) == 9
    with pytest.raises(RunExistsError, match=r"5\.txt and 3 more; move"):
        Run(tmp_path, Config(), "overwrite")


def test_names_of_temporary_files() -> None:
    assert is_temporary(Path(".a.b.12.tmp"))
    assert not any(
        is_temporary(Path(name)) for name in (".a.tmp", "a.12.tmp", ".12.tmp", ".a.12.tmp.x", ".a.new")
    )
