"""The fork server's own process; `forks` is the engine's end of it and says what the two promise each other."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from robust_nas.execution import worker
from robust_nas.execution.forks import CHUNK, GPUS


def _request(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return the engine's next request and the descriptors that came with it; ends the process where it is gone."""
    line, descriptors = b"", []
    while not line.endswith(b"\n"):
        with contextlib.suppress(ConnectionResetError):
            part, more, _, _ = socket.recv_fds(control, CHUNK, 3)
            line += part
            descriptors += more
            if part:
                continue
        os._exit(0)
    return json.loads(line), descriptors


def _answer(control: socket.socket, answer: object) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # found when the next request is awaited
        control.sendall(json.dumps(answer).encode() + b"\n")


def _prepare(function: str, payload: str) -> None:
    with contextlib.suppress(Exception):
        module = importlib.import_module(function.partition(":")[0])
        if hasattr(module, "prepare"):
            module.prepare(json.loads(payload))


def _is_fit() -> bool:
    """Return whether this process can be forked: it has one thread and no GPU open."""
    opened = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the listing itself
            opened.append(str(descriptor.readlink()))
    threads = len(list(Path("/proc/self/task").iterdir()))
    return threads == 1 and not any(path.startswith("/dev/nvidia") for path in opened)


def _become_worker(control: socket.socket, descriptors: list[int], gpus: str | None) -> None:
    """Works as a worker until the engine is gone; never returns."""
    try:
        control.close()
        os.setsid()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.environ.pop(GPUS, None)
        if gpus is not None:
            os.environ[GPUS] = gpus
        sys.argv[0] = worker.__file__  # as in a fresh process
        worker.main()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def main() -> None:
    """Answer the engine's requests until it is gone."""
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    first, _ = _request(control)
    _prepare(first["function"], first["payload"])
    if not _is_fit():
        return
    gc.freeze()  # so that no worker copies these pages to collect garbage
    _answer(control, "ready")
    while True:
        request, descriptors = _request(control)
        if "fork" in request:
            sys.stdout.flush()
            sys.stderr.flush()
            answer: object = os.fork()
            if answer == 0:
                _become_worker(control, descriptors, request["fork"])
            for descriptor in descriptors:
                os.close(descriptor)
        else:
            [(how, worker_id)] = request.items()
            pid, status = os.waitpid(worker_id, os.WNOHANG if how == "poll" else 0)
            answer = {"code": os.waitstatus_to_exitcode(status) if pid else None}
        _answer(control, answer)


if __name__ == "__main__":
    main()
