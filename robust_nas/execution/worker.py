"""A worker process of the local engine: tasks come by standard input, replies go to standard output, a line each.

A thread waits at standard input. Its end means that the driver is gone, however it went, and then the worker ends at
once with all processes that it started, so that a next driver finds nobody in the folder.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import signal
import threading
from pathlib import Path
from typing import BinaryIO

from robust_nas.execution.calling import call


def _listen(lines: BinaryIO, tasks: queue.SimpleQueue[bytes]) -> None:
    for line in lines:
        if line.endswith(b"\n"):  # else the driver died while it wrote
            tasks.put(line)
    os.killpg(0, signal.SIGKILL)  # the group is the worker's own: the engine starts it in a session


def main() -> None:
    """Works until the driver is gone."""
    faulthandler.enable()
    lines, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # a stray print is no reply
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines, tasks), daemon=True).start()
    while True:
        task = json.loads(tasks.get())
        reply = call(task["function"], task["payload"], Path(task["folder"]))
        replies.write(json.dumps(reply._asdict()).encode() + b"\n")
        replies.flush()


if __name__ == "__main__":
    main()
