"""The engine's end of the fork server: a process that imports what the tasks need, once, and then forks the workers.

Engine and server talk over a pair of sockets without a name, a line of JSON each way in turn; nothing is on the disk.
When the engine is gone, however it went, the server reads the end of its socket, once its imports are done, and ends.
It has one thread and never opens a GPU: what a fork would break. Where that cannot be kept, the server is lost, or a
worker needs other variables or another current folder than the server was started with, `start` returns None and a
fresh process does the work.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

GPUS = "CUDA_VISIBLE_DEVICES"  # the one variable that workers of an engine differ in; read when CUDA is initialised
CHUNK = 1 << 16  # bytes that are read at a time


class ForkServer:
    """The engine's end of the server. `function` and `payload` are those of the first task; `log` gets what it says.

    The function's module may have a function `prepare(payload)`, which the server calls before it forks: to import, and
    to read what all workers share. It starts no thread and does not touch a GPU; an error of it is ignored, as the
    task will meet it again.
    """

    def __init__(self, environment: Mapping[str, str], function: str, payload: str, log: Path) -> None:
        self._control: socket.socket | None = None
        if sys.platform != "linux":  # elsewhere system libraries do not bear a fork
            return
        self._started_with = _shared(environment)
        with contextlib.ExitStack() as opened:
            try:
                ours, theirs = socket.socketpair()
                opened.enter_context(theirs)
                self._control = ours
                file = opened.enter_context(log.open("ab"))
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "robust_nas.execution.forkserver"],
                    stdin=theirs.fileno(),
                    stdout=file,
                    stderr=file,
                    env=dict(environment),
                    start_new_session=True,  # Ctrl-C is the engine's to answer
                )
            except OSError:  # the fresh process that is tried next says why
                self._lose()
                return
        if self.ask({"function": function, "payload": payload}) != "ready":
            self.close()

    def start(self, environment: Mapping[str, str], log: IO[bytes]) -> Forked | None:
        """Return a new worker whose errors go to `log`; None where it has to be started as a fresh process."""
        if self._control is None or _shared(environment) != self._started_with:
            return None
        tasks, replies = os.pipe(), os.pipe()
        stdin, stdout = os.fdopen(tasks[1], "wb"), os.fdopen(replies[0], "rb")
        pid = None
        try:
            pid = self.ask({"fork": environment.get(GPUS)}, (tasks[0], replies[1], log.fileno()))
        finally:
            os.close(tasks[0])
            os.close(replies[1])
            if pid is None:  # a worker without its first pipe ends
                stdin.close()
                stdout.close()
        return None if pid is None else Forked(self, pid, stdin, stdout)

    def ask(self, request: Mapping[str, Any], descriptors: tuple[int, ...] = ()) -> Any:
        """Return the server's answer to a request; None where it is lost."""
        if self._control is None:
            return None
        try:
            line = json.dumps(request).encode() + b"\n"
            self._control.sendall(line[socket.send_fds(self._control, [line], descriptors) :])
            answer = b""
            while not answer.endswith(b"\n"):
                part = self._control.recv(CHUNK)
                if not part:
                    raise ConnectionResetError
                answer += part
        except OSError:
            self.close()
            return None
        except BaseException:  # Ctrl-C: the answer to come would be taken for that of the next request
            self.close()
            raise
        return json.loads(answer)

    def close(self) -> None:
        """End the server."""
        if self._control is not None:
            self._lose()
            self._process.kill()
            self._process.wait()

    def _lose(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None


class Forked:
    """A worker that the server forked, with what the engine uses of a `Popen`."""

    def __init__(self, server: ForkServer, pid: int, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self._server, self.pid, self.stdin, self.stdout = server, pid, stdin, stdout
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or the negative number of the signal; None while it lives."""
        return self._code("poll")

    def wait(self) -> int:
        """Return the same, once it is dead."""
        code = self._code("wait")
        assert code is not None  # noqa: S101 - the server waited
        return code

    def _code(self, request: str) -> int | None:
        if self.returncode is None:
            answer = self._server.ask({request: self.pid})
            if answer is None:  # nobody is left who could say how it ends
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)
                answer = {"code": -signal.SIGKILL}
            self.returncode = answer["code"]
        return self.returncode


def _shared(environment: Mapping[str, str]) -> tuple[int, int, dict[str, str]]:
    """Return the current folder, and the variables that all workers of a server have in common."""
    here = os.stat(".")  # also where the folder was removed, and has no path
    return here.st_dev, here.st_ino, {name: value for name, value in environment.items() if name != GPUS}
