"""Keep the journal of a study: an append-only file of one JSON event a line, which survives a kill at any instant.

    {"event": "opened", "version": 1, "package": "0.1.0"}            the first line
    {"event": "started", "trial": id, "attempt": 1}
    {"event": "done", "trial": id, "seconds": 12.3, "digest": sha256 of its outcome}
    {"event": "failed" | "diverged", "trial": id, "reason": "..."}
    {"event": "changed", "keys": ["analysis.rules"], "done": 12}    of the analysis, after `done` trials

A last line without its end was torn by a kill and is cut off; damage anywhere else is an error. The last event of a
trial is its state. `VERSION` counts the ways in which trials have been computed: outcomes of two versions are
never put into one table.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from robust_nas._version import __version__
from robust_nas.errors import RunError, StudyError
from robust_nas.records import Shape, misfit, parse_json

VERSION: Literal[1] = 1
JOURNAL = "journal.jsonl"
CHANGED = "changed"
KEYS: Shape = {  # that are read, by event
    "started": {"trial": str},
    "done": {"trial": str, "seconds": float, "digest": str},
    "failed": {"trial": str, "reason?": str},
    "diverged": {"trial": str, "reason?": str},
    CHANGED: {"keys": [str], "done": int},
}


class Journal:
    """Opened for appending; every event is on the disk when `add` returns."""

    def __init__(self, folder: Path) -> None:
        """Read what is there, cut a torn last line off, and start the file where there is none.

        Raises `StudyError` for a journal of another version, `RunError` for a damaged one.
        """
        self.path = folder / JOURNAL
        read_journal(folder)
        try:
            if self.path.is_file():
                whole = self.path.read_bytes()
                os.truncate(self.path, whole.rfind(b"\n") + 1)
            self._file = self.path.open("ab")
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        if not self.path.stat().st_size:
            self._append({"event": "opened", "version": VERSION, "package": __version__})

    def add(self, event: str, trial: str, **more: Any) -> None:
        """Append an event of a trial."""
        self._append({"event": event, "trial": trial, **more})

    def note_change(self, keys: Sequence[str], done: int) -> None:
        """Append that these keys of the analysis were changed when `done` trials were done."""
        self._append({"event": CHANGED, "keys": list(keys), "done": done})

    def _append(self, record: dict[str, Any]) -> None:
        try:
            self._file.write((json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n").encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror or error}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """Return the events in order, without a torn last line; none without a journal. Errors as `Journal`."""
    path = folder / JOURNAL
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from None
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            event = parse_json(line)
            known = number == 1 or _known(event)
        except (ValueError, RecursionError):
            known = False
        if not known:
            raise RunError(f"{path}: line {number} is damaged: {line[:80].decode(errors='replace')!r}")
        if number == 1:
            _refuse_other_version(event, path)
        else:
            events.append(event)
    return events


def _known(event: Any) -> bool:
    """Return whether an event has the keys that are read."""
    if misfit(event, {"event": frozenset(KEYS)}) or misfit(event, KEYS[event["event"]]):
        return False
    return event["event"] == CHANGED or re.fullmatch(r"[0-9a-f]{16}", event["trial"]) is not None


def _refuse_other_version(event: Any, path: Path) -> None:
    if not isinstance(event, dict) or event.get("event") != "opened":
        raise RunError(f"{path}: is no journal of a study; its first line is {str(event)[:80]!r}")
    if event.get("version") != VERSION:
        raise StudyError(
            f"{path}: was written by version {event.get('version')} of the trials (robust_nas {event.get('package')}), "
            f"this is version {VERSION} (robust_nas {__version__}), which computes trials differently; "
            "continue it with that version, or run the study again in another folder with --out"
        )


def latest(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the last event of every trial."""
    return {event["trial"]: event for event in events if event["event"] != CHANGED}
