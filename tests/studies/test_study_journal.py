"""The journal: what is added is read back, a torn end is cut off, damage and other versions are refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_nas.errors import RunError, StudyError
from robust_nas.studies.run.journal import JOURNAL, VERSION, Journal, latest, read_journal
from robust_nas.studies.run.trial import pack, unpack

A, B, C = ("a" * 16, "b" * 16, "c" * 16)


def written(folder: Path) -> Path:
    journal = Journal(folder)
    journal.add("started", A, attempt=1)
    journal.add("done", A, seconds=1.5, digest="00")
    journal.add("started", B, attempt=1)
    journal.close()
    return folder / JOURNAL


def test_what_is_added_is_read_back_and_the_last_event_counts(tmp_path: Path) -> None:
    written(tmp_path)
    states = {trial: event["event"] for trial, event in latest(read_journal(tmp_path)).items()}
    assert states == {A: "done", B: "started"}


def test_every_torn_end_loses_the_last_event_alone(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    last = whole[:-1].rfind(b"\n") + 1
    for length in range(last, len(whole)):
        path.write_bytes(whole[:length])
        journal = Journal(tmp_path)
        journal.add("done", C, seconds=0.0, digest="")
        journal.close()
        assert [event["trial"] for event in read_journal(tmp_path)] == [A, A, C]


def test_a_journal_torn_in_its_first_line_starts_anew(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(b'{"event": "ope')
    Journal(tmp_path).close()
    assert json.loads((tmp_path / JOURNAL).read_text())["event"] == "opened"


@pytest.mark.parametrize(
    "line", [b"{]", b"[]", b'{"event": "eaten", "trial": "a"}', b'{"event": "done"}', b"\xff\xfe"]
)
def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path: Path, line: bytes) -> None:
    path = written(tmp_path)
    lines = path.read_bytes().split(b"\n")
    lines[2] = line
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(RunError, match="line 3 is damaged"):
        Journal(tmp_path)
    assert path.read_bytes() == b"\n".join(lines)


def test_a_journal_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = written(tmp_path)
    text = path.read_text().replace(f'"version":{VERSION}', f'"version":{VERSION + 1}', 1)
    path.write_text(text)
    with pytest.raises(StudyError, match=f"version {VERSION + 1} of the trials"):
        Journal(tmp_path)
    assert path.read_text() == text


def test_a_foreign_file_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('{"loss": 1.0}\n')
    with pytest.raises(RunError, match="no journal of a study"):
        Journal(tmp_path)


@given(st.lists(st.booleans(), max_size=70))
def test_packed_booleans_come_back(values: list[bool]) -> None:
    assert unpack(pack(values), len(values)).tolist() == values


@pytest.mark.parametrize("text", ["zz", "", "0000"])
def test_text_that_holds_no_such_booleans_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"hex digits|invalid literal"):
        unpack(text, 5)
