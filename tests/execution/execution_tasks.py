"""The functions that the tests of the engines let run in workers: told by their payload what to do."""

import contextlib
import ipaddress
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

from robust_nas.errors import DivergenceError

PREPARED = []  # the process that did it, where one did


def prepare(payload):
    """Do what a fork does not bear, where the first payload asks for it."""
    PREPARED.append(os.getpid())
    if payload.get("thread"):
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()


def origin(payload, folder):
    """Where its process comes from and what it sees; then leaves, so that another process has the next task."""
    seen = {"parent": os.getppid(), "cwd": os.getcwd(), "variable": os.environ.get("A_VARIABLE")}
    (folder / "origin.json").write_text(json.dumps({"prepared": PREPARED, "command": sys.argv, **seen}))
    sys.exit(3)


def loses_its_server(payload, folder):
    """Kills the process that it was forked from, then waits for its own end; the second time it does its work."""
    if not os.path.exists(payload["mark"]):
        open(payload["mark"], "w").close()
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGSTOP)
    return {"prepared": PREPARED}


def square(payload, folder):
    """n to n squared, told in a file as well."""
    (folder / "inner").mkdir(exist_ok=True)
    (folder / "inner" / "n.txt").write_text(str(payload["n"]))
    return {
        "n": payload["n"],
        "square": payload["n"] ** 2,
        "pair": (payload["n"], 1.5),
        "threads": os.environ["OMP_NUM_THREADS"],
    }


def visits(payload, folder):
    """Continues what the folder holds: how often it was here."""
    path = folder / "visits.txt"
    number = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(number))
    (folder / "scratch.txt").unlink(missing_ok=True)
    return {"visits": number}


def diverges(payload, folder):
    raise DivergenceError("loss: became nan")


def fails(payload, folder):
    print("said before")
    raise ZeroDivisionError("a made-up fault")


def leaves(payload, folder):
    sys.exit(3)


def dies(payload, folder):
    print("about to die", file=sys.stderr, flush=True)
    os._exit(7)


def killed(payload, folder):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_once(payload, folder):
    """Dies, unless it did so before: told by a file outside its folder."""
    mark = payload["mark"]
    if not os.path.exists(mark):
        open(mark, "w").close()
        os._exit(7)
    return {"alive": True}


def not_json(payload, folder):
    return {"value": {"set": object, "nan": float("nan")}[payload["kind"]]}


def not_a_dict(payload, folder):
    return [1]


def process_id(payload, folder):
    """Its process number, then waits until it may go on: `payload["until"]` exists."""
    (folder / "pid").write_text(str(os.getpid()))
    while not os.path.exists(payload["until"]):
        time.sleep(0.02)
    return {"done": True}


def leaves_a_child(payload, folder):
    """Dies, but a child that holds its pipes lives on."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    (folder / "child").write_text(str(child.pid))
    os.kill(os.getpid(), signal.SIGKILL)


def gpus(payload, folder):
    """The GPUs it may use, once as many tasks run at the same time as the payload counts."""
    (folder / "here").touch()
    while sum(path.exists() for path in folder.parent.glob("*/here")) < payload["count"]:
        time.sleep(0.02)
    return {"gpus": os.environ["CUDA_VISIBLE_DEVICES"]}


def waits(payload, folder):
    """Tells its process number in a folder that all share, and waits until it may go on."""
    own = os.path.join(payload["pids"], f"{folder.name}-{os.getpid()}")
    with open(own, "w") as file:
        file.write(str(os.getpid()))
    os.rename(own, own + ".pid")
    while not os.path.exists(payload["until"]):
        time.sleep(0.02)
    return {"done": True}


def listening(payload, folder):
    """The addresses at which the process `driver` and all that it started listen, by the name of the process."""
    parents, found = {}, {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    family = [payload["driver"]]
    for one in family:
        family += [pid for pid, parent in parents.items() if parent == one]
    addresses = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # listens
                words = fields[1].partition(":")[0]
                raw = b"".join(bytes.fromhex(words[i : i + 8])[::-1] for i in range(0, len(words), 8))
                address = ipaddress.ip_address(raw)
                addresses[f"socket:[{fields[9]}]"] = str(getattr(address, "ipv4_mapped", None) or address)
    for pid in family:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                if (target := descriptor.readlink().name) in addresses:
                    name = Path(f"/proc/{pid}/comm").read_text().strip()
                    found.setdefault(name, []).append(addresses[target])
    return found
