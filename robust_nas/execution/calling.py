"""A task's call inside whatever process an engine runs it in, and the log of what it printed."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from robust_nas.errors import RobustNASError

LAST_WORDS = 2000  # bytes of a log that are read for a message


class Reply(NamedTuple):
    """What a call gave: a result or an error, the seconds it took, and whether its process is fit for another."""

    result: dict[str, Any] | None
    error: dict[str, str] | None
    seconds: float
    sound: bool = True


def log_of(folder: Path) -> Path:
    """Return the log of what a function prints, next to the task's folder, which is the function's alone."""
    return folder.with_name(folder.name + ".log")


def encode(tree: object, what: str) -> str:
    """JSON on one line. Raises `TypeError` for what JSON cannot hold, NaN and infinity included."""
    try:
        return json.dumps(tree, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{what} is not JSON: {error}") from None


def described(error: BaseException) -> dict[str, str]:
    """An exception as an error of a task."""
    return {"type": type(error).__name__, "message": str(error)}


def call(function: str, payload: str, folder: Path) -> Reply:
    """Calls "package.module:name" with the JSON `payload` and a folder that exists; whatever it raises is the reply.

    Its prints, and the traceback of an error that is none of ours, go to the log. A process whose function raised such
    an error is not sound: a broken CUDA context or a full memory would meet the next task.
    """
    began = time.perf_counter()
    try:
        with _printing_to(log_of(folder)):
            try:
                result = _found(function)(json.loads(payload), folder)
                if not isinstance(result, dict):
                    raise TypeError(f"{function}: returned {type(result).__name__}; a dict is needed")
                result = json.loads(encode(result, f"{function}: what it returned"))
            except RobustNASError:
                raise
            except BaseException:
                traceback.print_exc()
                raise
    except BaseException as error:
        seconds = time.perf_counter() - began
        return Reply(None, described(error), seconds, sound=isinstance(error, RobustNASError))
    return Reply(result, None, time.perf_counter() - began)


def _found(function: str) -> Callable[[dict[str, Any], Path], Any]:
    module, _, name = function.partition(":")
    found: Callable[[dict[str, Any], Path], Any] = getattr(importlib.import_module(module), name)
    return found


@contextlib.contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    """Standard output and error in a file, also those of C libraries and child processes."""
    kept = os.dup(1), os.dup(2)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)


def import_path() -> str:
    """Where this process imports from, as PYTHONPATH of another."""
    return os.pathsep.join(path or str(Path.cwd()) for path in sys.path)


def size_of(log: Path) -> int:
    """Bytes of a log; 0 where there is none."""
    try:
        return log.stat().st_size
    except OSError:
        return 0


def last_words(log: Path, since: int) -> str:
    """The end of what was written to a log after its first `since` bytes; empty where that is nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(since, size_of(log) - LAST_WORDS))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def drop_empty(log: Path) -> None:
    """Removes a log that nothing was written to."""
    with contextlib.suppress(OSError):
        if size_of(log) == 0:
            log.unlink()
