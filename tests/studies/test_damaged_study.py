"""Every record of a study, damaged: the verbs that read it name it in an error of ours, or make it again."""

import hashlib
import json
import os

import pytest
from damage import damages, kept, restored
from small_study import TREE, HereEngine, small_study

import robust_nas
from robust_nas.config import to_yaml

COUNT = int(os.environ.get("DAMAGES", "1"))
VERBS = {
    "status": ["study", "status", "study"],
    "report": ["study", "report", "study", "--quiet"],
    "export": ["study", "export", "study"],
    "run": ["study", "run", "study.yaml", "--out", "study", "--resume", "--quiet"],
}
STUDY = {**TREE, "space": [{"name": "grid", "axes": {"width": [4, 8]}}], "seeds": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a folder with a study of which one trial failed."""
    root = tmp_path_factory.mktemp("damaged")
    (root / "study.yaml").write_text(to_yaml(STUDY))
    config = small_study(**STUDY)
    engine = HereEngine({1: {"type": "ValueError", "message": "no memory"}})
    robust_nas.run_study(config, root / "study", engine=engine)
    return root, kept(root)


def records(root):
    paths = [
        path for path in (root / "study").rglob("*") if path.suffix in (".json", ".jsonl", ".yaml", ".csv")
    ]
    return sorted(path for path in paths if path.parent.name != "figures")


def with_its_digest(root, path, data):
    """Let the journal know a damaged outcome as the one that was measured."""
    journal = root / "study" / "journal.jsonl"
    known = hashlib.sha256(path.read_bytes()).hexdigest()
    journal.write_text(journal.read_text().replace(known, hashlib.sha256(data).hexdigest()))


@pytest.mark.parametrize("verb", VERBS)
def test_a_damaged_record_is_named_or_made_again(finished, call, monkeypatch, verb):
    root, before = finished
    monkeypatch.chdir(root)
    monkeypatch.setattr("robust_nas.execution.LocalEngine", lambda **_: HereEngine())
    monkeypatch.setattr("robust_nas.studies.report.page.write_report", lambda *_: None)  # it reads no record
    for path in records(root):
        for data in damages(path, before[path], COUNT):
            with restored(root, before):
                if path.name == "outcome.json" and path.parent.name != "model":
                    with_its_digest(root, path, data)
                path.write_bytes(data)
                found = call(*VERBS[verb])
                if found.code:
                    assert found.err.startswith(("error: ", "warning: ", "failed: ")), path
                    named = (path.name, path.parent.name, "no trial is done", "outcome.json")
                    assert any(name in found.err for name in named), (path, found.err)


@pytest.mark.parametrize(
    "event",
    [
        {"event": "done", "trial": "0" * 16, "seconds": float("nan"), "digest": "x"},
        {"event": "done", "trial": "0" * 16, "seconds": True, "digest": "x"},
        {"event": "failed", "trial": "0" * 16, "reason": 7},
        {"event": "failed", "trial": "0" * 16, "reason": None},
        {"event": ["failed"], "trial": "0" * 16},
        {"event": "failed", "trial": 7},
        {"event": "changed", "keys": [7], "done": 1},
        {"event": "ended"},
        [],
    ],
)
def test_a_damaged_event_is_named_by_its_line(finished, call, monkeypatch, event):
    root, before = finished
    monkeypatch.chdir(root)
    with restored(root, before):
        path = root / "study" / "journal.jsonl"
        path.write_text(path.read_text() + json.dumps(event) + "\n")
        found = call(*VERBS["status"])
    lines = before[path].count(b"\n") + 1
    assert found.code == 1
    assert f"journal.jsonl: line {lines} is damaged: " in found.err
