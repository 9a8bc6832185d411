"""TensorBoard's event files, by its own writer; `tensorboard --logdir results` shows them while the run goes on.

A resumed run passes on its records again. Those that an earlier event file has are skipped; at the first that is
missing or differs, a session-start event with its step makes TensorBoard drop all points from there on, and the new
ones follow. So nothing is there twice, nothing is lost, and points keep the time at which they were made.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from robust_nas.config import Count
from robust_nas.logger import LoggedRun, Logger, RunLog

PREFIX, SUFFIX = "events.out.tfevents.", ".robust-nas"
VERSION = "brain.Event:2"  # of the format, as TensorBoard's own files have it


class TensorBoard(Logger):
    """Writes event files into `loggers/tensorboard` of the run folder."""

    needs: ClassVar[tuple[str, ...]] = ("tensorboard",)
    install: ClassVar[str] = "pip install 'robust-nas[loggers]'"

    name: Literal["tensorboard"] = "tensorboard"
    flush_seconds: Count = 10  # seconds after which points are in the file at the latest

    def start(self, run: LoggedRun) -> RunLog:
        """Return the log of a run."""
        return EventLog(run.logs / "tensorboard", self.flush_seconds)


class EventLog(RunLog):
    """The logger in its running form."""

    def __init__(self, folder: Path, flush_seconds: int) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.known = _points(folder)  # until the first record that is not among them
        folder.mkdir(parents=True, exist_ok=True)
        self.writer = RecordWriter(_new_file(folder).open("wb"))
        self.flush_seconds, self.flushed = flush_seconds, time.monotonic()
        self._write(file_version=VERSION)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write a record, unless it was written before."""
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self.known:
            if all(self.known.get((name, step)) == _single(value) for name, value in scalars.items()):
                return
            self.known = {}
            self._write(step=step, session_log=SessionLog(status=SessionLog.START))
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(step=step, summary=Summary(value=values))

    def _write(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self.writer.write(Event(wall_time=time.time(), **event).SerializeToString())
        if time.monotonic() - self.flushed >= self.flush_seconds:
            self.writer.flush()
            self.flushed = time.monotonic()

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


def _new_file(folder: Path) -> Path:
    """Return an event file that comes after those of a folder, which are read by the order of their names."""
    before = [int(path.name.split(".")[3]) for path in folder.glob(f"{PREFIX}*{SUFFIX}")]
    return folder / f"{PREFIX}{max([int(time.time()), *(stamp + 1 for stamp in before)])}{SUFFIX}"


def _points(folder: Path) -> dict[tuple[str, int], float]:
    """Return the values that the event files of a folder hold, by name and step."""
    if not folder.is_dir():
        return {}
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={SCALARS: 0})  # 0: all
    read.Reload()
    return {(name, each.step): each.value for name in read.Tags()[SCALARS] for each in read.Scalars(name)}


def _single(value: float) -> float:
    """Return a number as event files keep it, in single precision."""
    return float(struct.unpack("f", struct.pack("f", value))[0])
