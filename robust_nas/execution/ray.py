"""Tasks on a Ray cluster (extra `ray`), or on one that is started on this machine for them.

A task's files travel with it: its folder is made on the node from what the driver's folder holds, and afterwards the
driver's folder is made equal to it. No shared file system is needed; the package must be importable on every node.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from pydantic import Field

from robust_nas.config import CountOrZero, NonNegative, Options, Positive
from robust_nas.errors import ConfigError, DistributionError
from robust_nas.execution.calling import Reply, call, described, encode, import_path, log_of
from robust_nas.execution.engine import LOST, Ended, RunTasks, Started, Task
from robust_nas.run_folder import write_atomic

OBJECT_STORE = 200_000_000  # bytes of a cluster of our own: tasks exchange small files
PATIENCE = 5.0  # seconds in which a cluster answers
LOOPBACK = "127.0.0.1"
# A node takes the loopback address only where Ray's clusters of several machines are off; read when Ray is imported.
SEVERAL_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # of a gRPC client
CUT = 400  # characters of a message of Ray
TICK = 1.0  # seconds after which the nodes are counted again


class RayEngine(Options):
    """A Ray task for each of ours, as many at a time as the nodes have room for, spread over them."""

    name: Literal["ray"] = "ray"
    address: str | None = Field(default=None, min_length=1)  # None: a cluster on this machine, for the run
    cpus: Positive = 1.0  # of a task
    gpus: NonNegative = 0.0  # of a task; a fraction lets several share a GPU
    retries: CountOrZero = 2  # of a task whose process or node died

    @property
    def text(self) -> str:
        """Return its name in reports."""
        share = f"{self.cpus:g} CPU" + (f", {self.gpus:g} GPU" if self.gpus else "")
        return f"ray at {self.address or 'this machine'}, {share} per task"

    @property
    def like_here(self) -> None:
        """Return None: other nodes are faster or slower than this process."""

    def device(self, asked: str, here: str) -> str:
        """Return `cuda` where a task gets a share of a GPU, else `cpu`.

        Raises `ConfigError` where a GPU is asked for and tasks get none.
        """
        if asked.startswith("cuda") and not self.gpus:
            raise ConfigError(
                f"device: got {asked!r}, but a Ray task has no GPU; add --gpus 1, or a fraction"
            )
        return "cuda" if self.gpus and asked != "cpu" else "cpu"

    def refuse_unreachable(self) -> None:
        """Raise `ConfigError` without Ray, or where nobody listens at the address."""
        self._imported()
        if self.address is not None:
            _refuse_unreachable(self.address)

    def run(self, tasks: Sequence[Task], started: Started) -> Iterator[Ended]:
        """Yield every task's end; see `Engine`.

        Raises `ConfigError` without Ray or where no node can take a task, and `DistributionError` when the last such
        node is lost.
        """
        with self.opened() as run:
            yield from run(tasks, started)

    @contextlib.contextmanager
    def opened(self) -> Iterator[RunTasks]:
        """Give `run` for several calls: the connection, or the cluster of our own, lives until the end of the context.

        Raises `ConfigError` without Ray.
        """
        ray, connected = self._imported(), False

        def run(tasks: Sequence[Task], started: Started) -> Iterator[Ended]:
            nonlocal connected
            waiting: deque[_Attempt] = deque()
            for task in tasks:
                try:
                    waiting.append(_Attempt(task, encode(task.payload, f"{task.id}: the payload"), 1))
                except TypeError as error:
                    yield Ended(task.id, None, described(error), 1, 0.0)
            if not waiting:
                return
            if not connected:
                self._connect(ray)
                connected = True
            try:
                yield from self._run(ray, waiting, started)
            except BaseException:  # also where the iterator is closed: what runs has to end
                connected = False
                ray.shutdown()
                raise

        try:
            yield run
        finally:
            if connected:
                ray.shutdown()

    def _imported(self) -> ModuleType:
        """Return Ray, set to listen on the loopback address for a cluster of our own: the import decides that."""
        if self.address is None:
            os.environ.setdefault(SEVERAL_MACHINES, "0")
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                f"engine ray: Ray is not installed ({error}); pip install 'robust-nas[ray]', or use the local engine"
            ) from None
        return ray

    def _connect(self, ray: ModuleType) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
        os.environ.setdefault(
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
        )  # tasks without GPUs: as Ray will do it
        where: dict[str, Any] = {"address": self.address}
        if self.address is None:
            _refuse_reachable(ray)
            where = {
                "address": "local",
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE,
                "_node_ip_address": LOOPBACK,
            }
        else:
            _refuse_unreachable(self.address)
        on_end = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**where, log_to_driver=False, configure_logging=False)
        except Exception as error:  # Ray raises plain exceptions where its processes do not come up
            ray.shutdown()
            said = " ".join(str(error).split())[:CUT] or type(error).__name__
            raise ConfigError(f"ray: no cluster at {self.address or 'this machine'}: {said}") from None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_end)  # Ray puts its own in place

    def _run(self, ray: ModuleType, waiting: deque[_Attempt], started: Started) -> Iterator[Ended]:
        variables = {"OMP_NUM_THREADS": "1"}
        if self.address is None:
            variables["PYTHONPATH"] = import_path()
        remote = ray.remote(_on_node).options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_retries=0,  # tried again here, where it is counted
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": variables},
        )
        if self._slots(ray) == 0:
            raise ConfigError(f"ray: {self._no_room(ray)}")
        running: dict[Any, _Attempt] = {}
        while waiting or running:
            slots = self._slots(ray)
            if slots == 0:
                raise DistributionError(f"ray: {self._no_room(ray)} any more; continue with --resume")
            while waiting and len(running) < slots:
                attempt = waiting.popleft()
                task = attempt.task
                started(task.id, attempt.number)
                files = _packed(task.folder)
                reference = remote.remote(task.function, attempt.payload, task.folder.name, files)
                running[reference] = attempt._replace(began=time.perf_counter(), sent=frozenset(files))
            for reference in ray.wait(list(running), timeout=TICK)[0]:
                attempt = running.pop(reference)
                try:
                    reply, files, log = ray.get(reference)
                except ray.exceptions.RayTaskError as error:  # of what is around the function: see `_on_node`
                    reply, files, log = Reply(None, described(error.cause), 0.0), {}, b""
                except ray.exceptions.RayError as error:
                    if attempt.number <= self.retries:
                        waiting.append(attempt._replace(number=attempt.number + 1))
                        continue
                    loss = {"type": LOST, "message": f"{type(error).__name__}: {error}"}
                    reply, files, log = Reply(None, loss, time.perf_counter() - attempt.began), {}, b""
                else:
                    _unpack(files, attempt.task.folder, attempt.sent)
                if log:
                    with log_of(attempt.task.folder).open("ab") as file:
                        file.write(log)
                yield Ended(attempt.task.id, reply.result, reply.error, attempt.number, reply.seconds)

    def _slots(self, ray: ModuleType) -> int:
        """How many tasks the nodes that are alive can run at a time."""
        return sum(self._room(node["Resources"]) for node in ray.nodes() if node["Alive"])

    def _room(self, resources: Mapping[str, float]) -> int:
        cpus = int(resources.get("CPU", 0) / self.cpus)
        return min(cpus, int(resources.get("GPU", 0) / self.gpus)) if self.gpus else cpus

    def _no_room(self, ray: ModuleType) -> str:
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        have = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in alive)
        return f"a task needs {self.cpus:g} CPU and {self.gpus:g} GPU, and no node has them (nodes: {have})"


class _Attempt(NamedTuple):
    task: Task
    payload: str
    number: int  # from 1
    began: float = 0.0
    sent: frozenset[str] = frozenset()  # names of the files that went with it


def _refuse_reachable(ray: ModuleType) -> None:
    """Raises `ConfigError` where a cluster of our own would listen to other machines: Ray runs any code it is sent."""
    if ray.util.get_node_ip_address() != LOOPBACK:
        raise ConfigError(
            f"ray: was imported before the engine started it, and would listen on every interface; "
            f"set {SEVERAL_MACHINES}=0 in the environment, or give the address of a cluster"
        )


def _refuse_unreachable(address: str) -> None:
    """Raises `ConfigError` where no gRPC server listens at host:port or ray://host:port.

    Ray would try for minutes and then end the process.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or "/" in host or not port.isdecimal():
        return  # `auto`, or what Ray refuses at once
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                connection.sendall(HELLO)
                if connection.recv(4)[3:] != b"\4":  # its settings, like ours
                    raise OSError("what listens there is not Ray")
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"ray: no cluster at {address}: {error}; `ray start --head` prints the address of one"
        ) from None


def _on_node(
    function: str, payload: str, name: str, files: dict[str, bytes]
) -> tuple[Reply, dict[str, bytes], bytes]:
    """A task on a node: the reply, the files that its folder then holds, and its log."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / name
        folder.mkdir()
        _unpack(files, folder, frozenset())
        reply = call(function, payload, folder)
        log = log_of(folder)
        return reply, _packed(folder), log.read_bytes() if log.exists() else b""


def _packed(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their names relative to it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _unpack(files: Mapping[str, bytes], folder: Path, sent: frozenset[str]) -> None:
    """Writes the files into a folder, each atomically, and removes those of `sent` that are not among them."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    for name in sent - files.keys():
        (folder / name).unlink(missing_ok=True)
