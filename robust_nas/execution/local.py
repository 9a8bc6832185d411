"""Tasks in worker processes of this machine. A worker that dies, by whatever signal, loses the task it had, no more."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Literal, NamedTuple

from robust_nas.config import Count, CountOrZero, Options
from robust_nas.errors import RunError
from robust_nas.execution.calling import (
    Reply,
    described,
    drop_empty,
    encode,
    import_path,
    last_words,
    log_of,
    size_of,
)
from robust_nas.execution.engine import LOST, Ended, RunTasks, Started, Task
from robust_nas.execution.forks import GPUS, ForkServer

HEARTBEAT = 0.2  # seconds after which a worker is noticed to be dead whose pipe a child of its own keeps open
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class LocalEngine(Options):
    """Worker processes, each with one task at a time and the same imports for all; GPUs are dealt out in turn."""

    name: Literal["local"] = "local"
    workers: Count = 2
    threads: Count = 1  # of OpenMP and BLAS in each worker
    retries: CountOrZero = 1  # of a task whose worker died

    @property
    def text(self) -> str:
        """Return its name in reports."""
        return f"local, {self.workers} worker{'s' * (self.workers > 1)}"

    @property
    def like_here(self) -> int:
        """Return the number of workers: they run on this machine."""
        return self.workers

    def device(self, asked: str, here: str) -> str:
        """Return the one GPU that was asked for, else the kind of device that this process takes."""
        return asked if ":" in asked else here

    def refuse_unreachable(self) -> None:
        """Refuse nothing: the workers are this machine's."""

    def run(self, tasks: Sequence[Task], started: Started) -> Iterator[Ended]:
        """Yield every task's end; see `Engine`. Workers start when there is a task for them."""
        with self.opened() as run:
            yield from run(tasks, started)

    @contextlib.contextmanager
    def opened(self) -> Iterator[RunTasks]:
        """Give `run` for several calls: workers and what they were forked from live until the end of the context."""
        pool = _Pool(self)
        try:
            yield pool.run
        finally:
            pool.close()


class _Pool:
    """The workers of an engine, and the server that forks them from the first task on."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.slots: list[_Worker | None] = [None] * engine.workers
        self.server: ForkServer | None = None
        self.closed = False

    def run(self, tasks: Sequence[Task], started: Started) -> Iterator[Ended]:
        """Yield every task's end; a worker that has a task when the iterator is closed is ended."""
        waiting: deque[_Attempt] = deque()
        for task in tasks:
            try:
                waiting.append(_Attempt(task, _line(task), 1))
            except TypeError as error:
                yield Ended(task.id, None, described(error), 1, 0.0)
        slots = self.slots
        try:
            while not self.closed and (waiting or any(worker and worker.attempt for worker in slots)):
                for number, worker in enumerate(slots):
                    if not waiting or (worker and worker.attempt):
                        continue
                    attempt = waiting.popleft()
                    started(attempt.task.id, attempt.number)
                    if worker and worker.dead():
                        worker.end()
                        worker = slots[number] = None
                    slots[number] = worker = worker or self._worker(attempt, number)
                    worker.give(attempt)
                for number, heard, reply in _heard(slots):
                    ended = heard.take()
                    if reply is None or not reply.sound:
                        slots[number] = None
                        death = heard.end()
                    if ended is None:
                        continue  # died while it had nothing to do
                    if reply is None and ended.number <= self.engine.retries:
                        waiting.append(ended._replace(number=ended.number + 1))
                        continue
                    if reply is None:
                        loss = {"type": LOST, "message": heard.loss_message(ended.task, death)}
                        reply = Reply(None, loss, time.perf_counter() - heard.began)
                    drop_empty(log_of(ended.task.folder))
                    yield Ended(ended.task.id, reply.result, reply.error, ended.number, reply.seconds)
        finally:
            self._end(worker for worker in slots if worker is not None and worker.attempt)
            if self.closed:  # by another thread, while this one may have started a worker
                self.close()

    def close(self) -> None:
        """End all workers and the server, and a call of `run` that is in another thread."""
        self.closed = True
        self._end(worker for worker in self.slots if worker is not None)
        server, self.server = self.server, None
        if server is not None:
            server.close()

    def _worker(self, first: _Attempt, number: int) -> _Worker:
        threads = self.engine.threads
        if self.server is None:
            self.server = _server(first.task, threads)
        return _Worker(first, self.server, threads, number)

    def _end(self, workers: Iterable[_Worker]) -> None:
        for worker in list(workers):
            worker.end()
            self.slots[:] = [None if slot is worker else slot for slot in self.slots]


class _Attempt(NamedTuple):
    task: Task
    line: bytes  # what a worker is sent
    number: int  # from 1


def _line(task: Task) -> bytes:
    payload = encode(task.payload, f"{task.id}: the payload")
    message = {"function": task.function, "payload": payload, "folder": str(Path(task.folder).absolute())}
    return json.dumps(message).encode() + b"\n"


def _server(first: Task, threads: int) -> ForkServer:
    payload = encode(first.payload, f"{first.id}: the payload")
    return ForkServer(_environment(threads, 0), first.function, payload, log_of(first.folder))


class _Worker:
    """A worker process in a session of its own, with the ends of its pipes and the attempt that it has."""

    def __init__(self, first: _Attempt, server: ForkServer, threads: int, number: int) -> None:
        self.attempt: _Attempt | None = None
        self.received = b""
        environment = _environment(threads, number)
        try:
            with log_of(first.task.folder).open(
                "ab"
            ) as log:  # what is said before the first call goes to its log
                self.process = server.start(environment, log) or subprocess.Popen(
                    [sys.executable, "-P", "-m", "robust_nas.execution.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise RunError(f"{first.task.id}: a worker cannot be started: {error}") from None
        os.set_blocking(self.replies.fileno(), False)

    @property
    def replies(self) -> IO[bytes]:
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe
        return self.process.stdout

    def give(self, attempt: _Attempt) -> None:
        """Sends the task; where the worker is dead already, that is found when it is listened to."""
        self.attempt, self.began = attempt, time.perf_counter()
        self.log_began = size_of(log_of(attempt.task.folder))
        assert self.process.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(attempt.line)
            self.process.stdin.flush()

    def take(self) -> _Attempt | None:
        """The attempt that it has, which it has no longer."""
        attempt, self.attempt = self.attempt, None
        return attempt

    def loss_message(self, task: Task, death: str) -> str:
        """Return the message of a task that died with the worker."""
        words = last_words(log_of(task.folder), self.log_began)
        return f"{death}; its last words: {words}" if words else death

    def dead(self) -> bool:
        return self.process.poll() is not None

    def receive(self) -> bool:
        """Takes what has come, without waiting; whether the pipe is at its end."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.replies.fileno(), 1 << 16):
                self.received += data
            return True
        return False

    def reply(self) -> Reply | None:
        """The reply, once all of it is here."""
        line, newline, _ = self.received.partition(b"\n")
        if not newline:
            return None
        self.received = b""
        return Reply(**json.loads(line))

    def end(self) -> str:
        """Kills the worker, and what it started and left behind; returns how it died."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr] # both are pipes
        return f"killed by signal {-code}" if code < 0 else f"exited with code {code}"


def _heard(slots: Sequence[_Worker | None]) -> Iterator[tuple[int, _Worker, Reply | None]]:
    """Waits a while, then gives each worker that replied (its reply) or died (None)."""
    with selectors.DefaultSelector() as selector:
        for worker in slots:
            if worker is not None:
                selector.register(worker.replies, selectors.EVENT_READ)
        selector.select(HEARTBEAT)
    for number, worker in enumerate(slots):
        if worker is not None:
            dead = worker.dead()  # asked first: what it wrote before is in the pipe
            closed = worker.receive()
            reply = worker.reply()
            if reply is not None or dead or closed:
                yield number, worker, reply


def _environment(threads: int, number: int) -> dict[str, str]:
    """This process's variables and import path; the number of threads; one GPU where there are several."""
    environment = {**os.environ, "PYTHONPATH": import_path(), **dict.fromkeys(THREADS, str(threads))}
    devices = _devices()
    if len(devices) > 1:
        environment[GPUS] = devices[number % len(devices)]
    return environment


def _devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get(GPUS)
    if chosen is not None:
        return [device.strip() for device in chosen.split(",") if device.strip()]
    present = [path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdecimal()]
    return [str(number) for number in range(len(present))]
