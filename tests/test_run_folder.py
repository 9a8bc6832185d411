"""Run folders: files appear whole or not at all, nothing is overwritten unasked, nothing foreign is trusted."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from run_configs import Config, Inner, child, files

from robust_nas.config import differences
from robust_nas.errors import RunError, RunExistsError
from robust_nas.run_folder import (
    CHECKPOINT,
    CONFIG,
    METRICS,
    RESULT,
    Run,
    read_json,
    write_atomic,
    write_json,
)

# Files


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert files(tmp_path) == {"file": b"two"}


def test_what_cannot_be_written_is_our_error_and_leaves_nothing(tmp_path):
    (tmp_path / "regular").write_bytes(b"x")
    with pytest.raises(RunError, match=r"regular/file: cannot be written: Not a directory"):
        write_atomic(tmp_path / "regular" / "file", b"data")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        write_atomic(tmp_path / "folder", b"data")
    assert files(tmp_path) == {"regular": b"x"}


def test_json_files_are_objects_without_nan(tmp_path):
    write_json(tmp_path / "a.json", {"value": 1.5})
    assert read_json(tmp_path / "a.json") == {"value": 1.5}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert read_json(tmp_path / "a.json") == {"value": 1.5}
    for text in ("[1]", "{", ""):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(RunError, match=r"b\.json"):
            read_json(tmp_path / "b.json")
    with pytest.raises(RunError, match="cannot be read"):
        read_json(tmp_path / "missing.json")


# A limit on the size of files stands in for a full disk: both end a write halfway with an OSError.
FULL_DISK = """
    import resource, signal, sys
    from pathlib import Path
    import torch
    from robust_nas.errors import RunError
    from robust_nas.run_folder import Run, write_atomic
    from robust_nas.config import Options

    class Config(Options):
        name: str = "x"
        seed: int = 0
        inner: dict = {"rate": 0.1}

    folder = Path(sys.argv[1])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    run = Run(folder, Config())
    run.log({"step": 0})
    run.save_checkpoint({"weights": torch.arange(10)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    for attempt in (
        lambda: run.save_checkpoint({"weights": torch.zeros(100_000)}),
        lambda: write_atomic(folder / "big", bytes(100_000)),
        lambda: [run.log({"text": "x" * 1000}) for _ in range(100)],
        lambda: run.finish({}, []),
    ):
        try:
            attempt()
            print("written")
        except RunError as error:
            print(error)
    run.close()
"""


def test_a_full_disk_is_a_clear_error_and_the_last_good_checkpoint_stays(tmp_path):
    lines = child(FULL_DISK, tmp_path / "run").splitlines()
    assert len(lines) == 4
    assert all("cannot be written: " in line for line in lines)
    assert "File too large" in lines[0]
    assert lines[0].endswith("the last good checkpoint stays")
    assert lines[2].endswith("the last good checkpoint stays")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", CONFIG, METRICS, CHECKPOINT}
    with Run(tmp_path / "run", Config(), "resume") as run:
        assert torch.equal(run.load_checkpoint()["weights"], torch.arange(10))
        assert run.records() == [{"step": 0}]


# Which folders may be used


def test_an_unwritable_folder_is_our_error(tmp_path):
    (tmp_path / "regular").write_bytes(b"x")
    for mode in ("new", "resume", "overwrite"):
        with pytest.raises(RunError, match="cannot be written"):
            Run(tmp_path / "regular" / "run", Config(), mode)


def test_a_regular_file_is_no_folder(tmp_path):
    (tmp_path / "regular").write_bytes(b"x")
    for mode in ("new", "resume", "overwrite"):
        with pytest.raises(RunExistsError):
            Run(tmp_path / "regular", Config(), mode)
    assert files(tmp_path) == {"regular": b"x"}


def test_a_folder_that_exists_is_not_touched_without_being_asked(tmp_path):
    with Run(tmp_path, Config()) as run:
        run.log({"step": 0})
    before = files(tmp_path)
    with pytest.raises(RunExistsError, match=r"--resume.*--overwrite.*--out"):
        Run(tmp_path, Config())
    assert files(tmp_path) == before


@pytest.mark.parametrize("mode", ["resume", "overwrite", "new"])
def test_a_folder_that_is_no_run_is_never_touched(tmp_path, mode):
    (tmp_path / METRICS).write_text("mine")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunExistsError):
        Run(tmp_path, Config(), mode)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [METRICS, "thesis.txt"]


@pytest.mark.parametrize("mode", ["new", "resume", "overwrite"])
def test_an_empty_folder_and_the_trace_of_a_kill_at_the_very_start_are_as_good_as_none(tmp_path, mode):
    (tmp_path / ".lock").touch()
    (tmp_path / f".{CONFIG}.123.tmp").write_text("half")
    with Run(tmp_path, Config(), mode) as run:
        assert run.load_checkpoint() is None
    assert set(files(tmp_path)) == {CONFIG}


def test_resuming_with_another_config_names_the_keys_and_changes_nothing(tmp_path):
    with Run(tmp_path, Config()) as run:
        run.save_checkpoint({})
    before = files(tmp_path)
    with pytest.raises(RunExistsError, match=r"different: inner\.rate, seed\. Use that config"):
        Run(tmp_path, Config(seed=1, inner=Inner(rate=0.2)), "resume")
    assert files(tmp_path) == before


trees = st.recursive(
    st.integers(0, 3), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=6
)


@given(trees, trees)
def test_differences_are_symmetric_and_none_exactly_for_equal_trees(one, other):
    assert differences(one, other) == differences(other, one)
    assert differences(one, one) == set()
    assert bool(differences({"k": one}, {"k": other})) == (one != other)


def test_overwriting_leaves_nothing_of_the_old_run(tmp_path):
    with Run(tmp_path, Config()) as run:
        run.log({"step": 0})
        run.save_checkpoint({})
        (tmp_path / "figures").mkdir()
        (tmp_path / "figures" / "a.png").touch()
        run.finish({}, [])
    with Run(tmp_path, Config(seed=1), "overwrite") as run:
        assert not run.finished
        assert run.load_checkpoint() is None
        assert run.records() == []
    assert set(files(tmp_path)) == {CONFIG}


def test_overwriting_follows_no_link_out_of_the_folder(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("mine")
    with Run(tmp_path / "run", Config()):
        (tmp_path / "run" / "link").symlink_to(tmp_path / "outside")
    Run(tmp_path / "run", Config(), "overwrite").close()
    assert (tmp_path / "outside" / "precious").read_text() == "mine"
    assert not (tmp_path / "run" / "link").exists()


@pytest.mark.parametrize("survivors", range(5))
def test_an_overwrite_killed_at_any_point_can_be_repeated_and_never_looks_finished(
    tmp_path, monkeypatch, survivors
):
    with Run(tmp_path, Config()) as run:
        run.log({"step": 0})
        run.save_checkpoint({})
        (tmp_path / "search").mkdir()
        (tmp_path / "search" / RESULT).touch()
        run.finish({}, [])
    deleted = []
    real = {name: getattr(os, name) for name in ("unlink", "rename")}

    def counted(name):
        def call(*arguments, **keywords):
            if len(deleted) == survivors:
                raise KeyboardInterrupt
            deleted.append(arguments[0])
            return real[name](*arguments, **keywords)

        return call

    for name in real:
        monkeypatch.setattr(os, name, counted(name))
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path, Config(), "overwrite")
    monkeypatch.undo()
    whole = survivors == 0
    with Run(tmp_path, Config(), "resume") as run:
        assert run.finished == whole
        run.load_checkpoint()
    with Run(tmp_path, Config(), "overwrite") as run:
        assert run.load_checkpoint() is None


def test_leftovers_of_a_killed_process_are_cleared(tmp_path):
    with Run(tmp_path, Config()):
        (tmp_path / f".{CHECKPOINT}.4242.tmp").write_bytes(b"half")
    with Run(tmp_path, Config(), "resume"):
        assert set(files(tmp_path)) == {CONFIG}


def test_two_processes_do_not_share_a_folder(tmp_path):
    code = """
        import sys
        from pathlib import Path
        from robust_nas.config import Options
        from robust_nas.errors import RunError
        from robust_nas.run_folder import Run
        class Config(Options):
            name: str = "x"
        for mode in ("resume", "overwrite"):
            try:
                Run(Path(sys.argv[1]), Config(), mode)
            except RunError as error:
                print(error)
    """
    with Run(tmp_path, Config()):
        before = files(tmp_path)
        lines = child(code, tmp_path).splitlines()
        assert len(lines) == 2
        assert all(line.endswith("another process is working in it") for line in lines)
        assert files(tmp_path) == before
        with pytest.raises(RunError, match="another process"):
            Run(tmp_path, Config(), "resume")
    Run(tmp_path, Config(), "resume").close()


def test_a_killed_process_releases_its_folder(tmp_path):
    code = """
        import os, signal, sys
        from pathlib import Path
        from robust_nas.config import Options
        from robust_nas.run_folder import Run
        class Config(Options):
            name: str = "x"
            seed: int = 0
            inner: dict = {"rate": 0.1}
        run = Run(Path(sys.argv[1]), Config())
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "run")], check=False)
    assert killed.returncode == -9
    Run(tmp_path / "run", Config(), "resume").close()


def test_metrics_can_be_read_as_they_are_logged(tmp_path):
    with Run(tmp_path / "run", Config()) as run:
        run.log({"epoch": 0})
        assert (tmp_path / "run" / METRICS).read_text() == '{"epoch":0}\n'
