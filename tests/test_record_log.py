"""Records that are appended: each costs its own bytes, and a file that a kill or a fault left says so or is read."""

import pickle
import struct
from hashlib import sha256

import pytest
import torch

from robust_nas.errors import CheckpointError, RunError
from robust_nas.record_log import MARK, RecordLog


def record(number):
    return {"right": torch.arange(5) > number, "label": f"record {number}", "values": [0.5, None]}


def filled(path, count=3):
    log = RecordLog(path, "evaluate", ["now"])
    for number in range(count):
        log.append(f"part {number}", record(number))
    return path.read_bytes()


def equal(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) if torch.is_tensor(one[key]) else one[key] == other[key]
        for key in one
    )


def test_what_was_appended_is_read(tmp_path):
    filled(tmp_path / "log")
    found = RecordLog(tmp_path / "log", "evaluate", ["now"]).records
    assert list(found) == ["part 0", "part 1", "part 2"]
    assert all(equal(found[f"part {number}"], record(number)) for number in range(3))


def test_a_record_costs_its_own_bytes_however_many_there_are(tmp_path):
    log, sizes = RecordLog(tmp_path / "log", "evaluate", ["now"]), []
    for number in range(40):
        before = (tmp_path / "log").read_bytes() if number else b""
        log.append(f"part {number:02}", record(1))
        after = (tmp_path / "log").read_bytes()
        assert after.startswith(before)
        sizes.append(len(after) - len(before))
    assert len(set(sizes[1:])) == 1


def test_a_torn_last_record_is_dropped_and_written_again(tmp_path):
    path = tmp_path / "log"
    whole = filled(path)
    start = len(filled(tmp_path / "two", 2))
    for length in (start, start + 1, start + 39, start + 40, (start + len(whole)) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        log = RecordLog(path, "evaluate", ["now"])
        assert list(log.records) == ["part 0", "part 1"]
        log.append("part 2", record(2))
        assert path.read_bytes() == whole


def test_a_record_that_changed_is_no_torn_one(tmp_path):
    whole = bytearray(filled(tmp_path / "log"))
    whole[len(filled(tmp_path / "one", 1)) + 60] ^= 1
    (tmp_path / "log").write_bytes(bytes(whole))
    with pytest.raises(CheckpointError, match=r"log: damaged: a record in it has changed"):
        RecordLog(tmp_path / "log", "evaluate", ["now"])


def test_a_log_of_another_job_or_config_is_refused(tmp_path):
    filled(tmp_path / "log")
    with pytest.raises(CheckpointError, match=r"is of job 'evaluate', not of 'train'"):
        RecordLog(tmp_path / "log", "train", ["now"])
    with pytest.raises(CheckpointError, match="belongs to another config"):
        RecordLog(tmp_path / "log", "evaluate", ["later"])
    assert len(RecordLog(tmp_path / "log", "evaluate", ["later", "now"]).records) == 3  # it was extended


def test_the_checkpoint_of_an_earlier_version_is_continued(tmp_path):
    path = tmp_path / "checkpoint.pt"
    old = {"job": "evaluate", "config_hash": "now", "metrics_bytes": 0, "records": {"part 0": record(0)}}
    torch.save(old, path)
    before = path.read_bytes()
    log = RecordLog(path, "evaluate", ["now"])
    assert path.read_bytes() == before
    log.append("part 1", record(1))
    found = RecordLog(path, "evaluate", ["now"]).records
    assert [equal(found[f"part {number}"], record(number)) for number in range(2)] == [True, True]


def test_nothing_in_a_log_is_executed(tmp_path):
    class Bad:
        def __reduce__(self):
            return print, ("executed",)

    payload = pickle.dumps({"name": "part 1", "record": Bad()})
    frame = struct.pack("<Q", len(payload)) + sha256(payload).digest() + payload
    (tmp_path / "log").write_bytes(filled(tmp_path / "log", 1) + frame)
    assert (tmp_path / "log").read_bytes().startswith(MARK)
    with pytest.raises(CheckpointError, match="refused, it is no plain checkpoint"):
        RecordLog(tmp_path / "log", "evaluate", ["now"])


def test_a_log_that_cannot_be_written_is_our_error(tmp_path):
    filled(tmp_path / "log")
    log = RecordLog(tmp_path / "log", "evaluate", ["now"])
    (tmp_path / "log").unlink()
    with pytest.raises(
        RunError, match=r"log: cannot be written: No such file.*; what was written before stays"
    ):
        log.append("part 3", record(3))
