"""Metrics and checkpoints of a run folder: they come back together, and nothing foreign in them is trusted."""

import io
import json
import os
import pickle
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from run_configs import Config

from robust_nas.errors import CheckpointError, ConfigError, DataError, RunError, RunExistsError
from robust_nas.run_folder import (
    CHECKPOINT,
    CONFIG,
    METRICS,
    RESULT,
    Run,
    is_finished,
    read_checkpoint,
)


def test_a_checkpoint_comes_back_with_the_metrics_of_its_moment(tmp_path):
    state = {"weights": torch.randn(3, dtype=torch.float64), "epoch": 2, "names": ["a"], "none": None}
    with Run(tmp_path, Config()) as run:
        run.log({"step": 0})
        run.save_checkpoint(state)
        run.log({"step": 1})
        assert [record["step"] for record in run.records()] == [0, 1]
    with (tmp_path / METRICS).open("ab") as file:
        file.write(b'{"step": 2, "lo')  # cut by the kill
    with Run(tmp_path, Config(), "resume") as run:
        found = run.load_checkpoint()
        assert torch.equal(found.pop("weights"), state["weights"])
        assert {key: found[key] for key in ("epoch", "names", "none")} == {
            "epoch": 2,
            "names": ["a"],
            "none": None,
        }
        assert run.records() == [{"step": 0}]
        run.log({"step": 1})
        assert run.records() == [{"step": 0}, {"step": 1}]


def test_without_a_checkpoint_the_metrics_start_anew(tmp_path):
    with Run(tmp_path, Config()) as run:
        run.log({"step": 0})
    with Run(tmp_path, Config(), "resume") as run:
        assert run.load_checkpoint() is None
        assert run.records() == []


def test_metrics_shorter_than_the_checkpoint_says_are_refused(tmp_path):
    with Run(tmp_path, Config()) as run:
        run.log({"step": 0})
        run.save_checkpoint({})
    (tmp_path / METRICS).write_bytes(b"")
    with Run(tmp_path, Config(), "resume") as run, pytest.raises(CheckpointError, match="shorter"):
        run.load_checkpoint()


def test_nan_is_no_metric(tmp_path):
    with Run(tmp_path, Config()) as run:
        with pytest.raises(ValueError, match="not JSON compliant"):
            run.log({"loss": float("nan")})
        assert run.records() == []


class Evil:
    """Unpickled without care, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def legacy_pickle(value):
    return pickle.dumps(value)


def torch_pickle(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize("write", [legacy_pickle, torch_pickle])
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path, write):
    with Run(tmp_path / "run", Config()) as run:
        run.save_checkpoint({})
    victim = tmp_path / "victim"
    data = write({"metrics_bytes": 0, "evil": Evil(str(victim))})
    (tmp_path / "run" / CHECKPOINT).write_bytes(data)
    with Run(tmp_path / "run", Config(), "resume") as run, pytest.raises(CheckpointError, match="refused"):
        run.load_checkpoint()
    assert not victim.exists()
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == data


WHOLE = torch_pickle({"metrics_bytes": 0, "weights": torch.arange(50), "optimiser": {"state": {0: [1, 2]}}})
LEGACY = io.BytesIO()
torch.save({"metrics_bytes": 0, "weights": torch.arange(50)}, LEGACY, _use_new_zipfile_serialization=False)
LEGACY = LEGACY.getvalue()


@given(st.sampled_from([WHOLE, LEGACY]), st.floats(0, 1, exclude_max=True))
def test_a_truncated_checkpoint_is_our_error(tmp_path_factory, data, share):
    path = tmp_path_factory.mktemp("cut") / CHECKPOINT
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: (damaged|refused)"):
        read_checkpoint(path)


@given(st.binary(max_size=300))
def test_random_bytes_are_our_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("noise") / CHECKPOINT
    path.write_bytes(data)
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_flipped_byte_never_escapes_as_another_error(tmp_path_factory, position, change):
    data = bytearray(WHOLE)
    data[position] ^= change
    path = tmp_path_factory.mktemp("flip") / CHECKPOINT
    path.write_bytes(bytes(data))
    try:
        assert isinstance(read_checkpoint(path), dict)
    except CheckpointError as error:
        assert str(path) in str(error)  # noqa: PT017 - a flip in the padding is harmless


@pytest.mark.parametrize(
    "foreign", [{"weights": 1}, [1, 2], torch.zeros(3), {"metrics_bytes": "0"}, {"metrics_bytes": None}]
)
def test_a_file_of_something_else_is_no_checkpoint(tmp_path, foreign):
    torch.save(foreign, tmp_path / CHECKPOINT)
    with pytest.raises(CheckpointError, match="not a checkpoint of a run"):
        read_checkpoint(tmp_path / CHECKPOINT)


def test_a_zip_that_is_no_torch_file_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / CHECKPOINT, "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / CHECKPOINT)


def test_a_checkpoint_of_another_config_is_refused(tmp_path):
    for seed in (0, 1):
        with Run(tmp_path / str(seed), Config(seed=seed)) as run:
            run.save_checkpoint({})
    (tmp_path / "0" / CHECKPOINT).write_bytes((tmp_path / "1" / CHECKPOINT).read_bytes())
    with (
        Run(tmp_path / "0", Config(), "resume") as run,
        pytest.raises(CheckpointError, match="another config"),
    ):
        run.load_checkpoint()


def test_a_finished_run_says_so(tmp_path):
    with Run(tmp_path, Config()) as run:
        assert not run.finished
        run.log({"step": 0})
        run.finish({"clean": 0.5}, [])
        assert run.finished
        assert (tmp_path / METRICS).read_text() == '{"step":0}\n'
    assert json.loads((tmp_path / RESULT).read_text()) == {"clean": 0.5, "artifacts": [], "digests": {}}


def test_a_run_whose_artifact_is_gone_is_not_finished_and_can_make_it_again(tmp_path):
    with Run(tmp_path, Config()) as run:
        run.write("architecture.yaml", "found")
        run.finish({}, ["architecture.yaml"])
    assert is_finished(tmp_path)
    (tmp_path / "architecture.yaml").unlink()
    assert not is_finished(tmp_path)


def test_overwriting_refuses_what_is_no_run_or_is_in_use(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "config.yaml").write_text("title: my blog")
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(RunExistsError, match="is none and is not overwritten"):
        Run(precious, Config(), "overwrite")
    assert (precious / "thesis.txt").read_text() == "years of work"
    Run(tmp_path / "outer", Config()).close()
    with Run(tmp_path / "outer" / "inner", Config()) as inner:
        with pytest.raises(RunError, match="another process is working in it"):
            Run(tmp_path / "outer", Config(), "overwrite")
        assert (inner.folder / CONFIG).is_file()


def test_a_mistake_found_before_any_work_leaves_no_folder_in_the_way(tmp_path):
    with pytest.raises(DataError), Run(tmp_path / "new", Config()):
        raise DataError("no such images")
    assert not (tmp_path / "new").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    with pytest.raises(DataError), Run(mine, Config()):
        raise DataError("no such images")
    assert mine.is_dir()


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="allowed: new, resume, overwrite"):
        Run(tmp_path / "run", Config(), "overwrit")
    assert not (tmp_path / "run").exists()
