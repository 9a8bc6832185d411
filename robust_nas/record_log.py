"""Records of a job in one file that only grows: a new record costs its own bytes, a torn last one is dropped.

    MARK, then frames:   8 bytes, the length of the payload; 32 bytes, its SHA-256; the payload, torch.save of
                         {"name", "record"}; the first frame is the head {"job", "config_hash"}

The checkpoints of evaluations by earlier versions, which held all records in one piece, are read, and written in this
form at the next record.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from robust_nas.checkpoints import load_plain, read_checkpoint
from robust_nas.errors import CheckpointError, RunError
from robust_nas.files import write_atomic

MARK = b"robust_nas records 1\n"


class RecordLog:
    """The records of `job` in a file, by name. `hashes` are those of the config: the present one first."""

    def __init__(
        self,
        path: Path,
        job: str,
        hashes: Collection[str],
        before_rewrite: Callable[[], None] = lambda: None,
    ) -> None:
        """Read what is there; `before_rewrite` is called before a file of an earlier version is written again.

        Raises `CheckpointError` for a file that is damaged before its last record, or of another job or config.
        """
        self.path, self._length, self._before_rewrite = path, 0, before_rewrite
        self.records: dict[str, dict[str, Any]] = {}  # those that were there
        self._head: dict[str, Any] = {"job": job, "config_hash": next(iter(hashes))}
        if path.is_file():
            head, parts = self._read() if self._is_log() else self._read_checkpoint()
            if head.get("config_hash") not in hashes:
                raise CheckpointError(f"{path}: belongs to another config")
            if head.get("job") != job:
                raise CheckpointError(f"{path}: its checkpoint is of job {head.get('job')!r}, not of {job!r}")
            if not all(isinstance(record, dict) for record in parts.values()):
                raise CheckpointError(f"{path}: does not fit this run: it holds no records")
            self.records = parts

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Add a record. Raises `RunError` where it cannot be written; those before it stay."""
        if not self._length:
            known = b"".join(_frame({"name": key, "record": value}) for key, value in self.records.items())
            whole = MARK + _frame(self._head) + known
            self._before_rewrite()
            write_atomic(self.path, whole)
            self._length = len(whole)
        frame = _frame({"name": name, "record": record})
        try:
            with self.path.open("r+b") as file:
                file.truncate(self._length)  # what a kill, or a full disk, left of a record
                file.seek(self._length)
                file.write(frame)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be written: {error.strerror or error}; what was written before stays"
            ) from None
        self._length += len(frame)

    def _is_log(self) -> bool:
        with self.path.open("rb") as file:
            return file.read(len(MARK)) == MARK

    def _read_checkpoint(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the head and the records of an earlier version."""
        state = read_checkpoint(self.path)
        records = state.get("records")
        return state, records if isinstance(records, dict) else {"": None}

    def _read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the head and the records up to a torn last one."""
        data = self.path.read_bytes()
        place, payloads = len(MARK), []
        while len(data) - place >= 40:
            (length,) = struct.unpack_from("<Q", data, place)
            payload = data[place + 40 : place + 40 + length]
            if hashlib.sha256(payload).digest() != data[place + 8 : place + 40]:
                if place + 40 + length < len(data):
                    raise CheckpointError(f"{self.path}: damaged: a record in it has changed")
                break
            payloads.append(payload)
            place += 40 + length
        if not payloads:
            return self._head, {}
        self._length = place
        trees = [load_plain(io.BytesIO(payload), self.path) for payload in payloads]
        head, *parts = [tree if isinstance(tree, dict) else {} for tree in trees]
        return head, {str(part.get("name")): part.get("record") for part in parts}


def _frame(tree: dict[str, Any]) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(tree, buffer)
    payload = buffer.getvalue()
    return struct.pack("<Q", len(payload)) + hashlib.sha256(payload).digest() + payload
