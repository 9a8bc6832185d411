"""The protocol of engines: tasks in, ends out, in any order.

A task is a function named by its module and name, called with plain data and a folder of its own. An engine never loses
a task: each ends exactly once, with a result or with an error, however its process died.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

LOST = "WorkerLost"  # the error type of a task whose process died each time


class Task(NamedTuple):
    """One call: `function(payload, folder)`, which returns a dict that JSON can hold."""

    id: str
    function: str  # "package.module:name"
    payload: dict[str, Any]  # as JSON: the function gets lists where tuples were given
    folder: Path  # the task's own; its files are there, and stay there, wherever the function runs


class Ended(NamedTuple):
    """How a task ended: with `result`, or with `error` = {"type": the exception's class name, "message"}."""

    id: str
    result: dict[str, Any] | None
    error: dict[str, str] | None
    attempts: int
    seconds: float  # wall time of the last attempt, without the start of its process


Started = Callable[[str, int], None]  # is called with a task's id and the number of the attempt
RunTasks = Callable[[Sequence[Task], Started], Iterator[Ended]]


class Engine(Protocol):
    """Where tasks run."""

    @property
    def name(self) -> str:
        """Return the word that chooses it: `local`, `ray`."""

    @property
    def text(self) -> str:
        """Return its name in reports, such as `local, 2 workers`."""

    @property
    def like_here(self) -> int | None:
        """Return how many tasks run at a time where all run as fast as in this process; None where speeds differ."""

    def device(self, asked: str, here: str) -> str:
        """Return the device of every task: `asked` is the config's, `here` the kind that this process would take.

        Raises `ConfigError` for a device that the engine's tasks do not have.
        """

    def refuse_unreachable(self) -> None:
        """Raise `ConfigError` where it is known beforehand that no task can run."""

    def run(self, tasks: Sequence[Task], started: Started) -> Iterator[Ended]:
        """Yield every task's end, in the order of the ends. `started(id, attempt)` is called when one begins.

        An exception of the function is its end and is not tried again; a process that dies is replaced and its task
        tried again, `retries` times. Closing the iterator, or an error in its user, ends what runs.
        """

    def opened(self) -> AbstractContextManager[RunTasks]:
        """Return a context that gives `run` for several calls, one after the other.

        What is started for one call serves the next ones, and ends with the context. All tasks have the function and
        the imports of the first one.
        """
