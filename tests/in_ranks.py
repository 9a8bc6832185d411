"""Runs a function of a test file in several processes that talk by gloo, as torchrun would start them.

One process imports all it needs, and its forks are the ranks: that spares each of them the seconds of the imports.
"""

import importlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import torch

from robust_nas.distributed import joined, may_print
from robust_nas.errors import RobustNASError


def in_ranks(file, function, folder, counts, **arguments):
    """Calls `function(ranks, **arguments)` of a test file in 1, 2, ... processes, as `counts` says.

    Returns {count: [(what it returned, exit code, what it printed) of every rank]}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        __file__,
        file,
        function,
        str(folder),
        json.dumps(counts),
        json.dumps(arguments),
    ]
    alone = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }  # a fork with a pool of threads hangs
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {}
    for count in counts:
        codes = json.loads((folder / f"{count}.json").read_text())
        found[count] = []
        for rank, code in enumerate(codes):
            path = folder / f"{count}-{rank}.pt"
            value = torch.load(path, weights_only=True) if path.exists() else None
            found[count].append((value, code, (folder / f"{count}-{rank}.txt").read_text()))
    return found


def results(found):
    """{count: [result of every rank]} where all went well."""
    for ranks in found.values():
        assert all(code == 0 for _, code, _ in ranks), [text for _, _, text in ranks]
    return {count: [value for value, _, _ in ranks] for count, ranks in found.items()}


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _rank(function, folder, rank, count, arguments):
    output = os.open(folder / f"{count}-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 1
    try:
        with joined() as ranks:
            result = function(ranks, **arguments)
        torch.save(result, folder / f"{count}-{rank}.pt")
        code = 0
    except RobustNASError as error:
        code = error.exit_code
        if may_print(error):
            print(f"error: {error}", flush=True)
    except BaseException:  # whatever it is, the test that waits shall see it
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def _main(file, name, folder, counts, arguments):
    sys.path.insert(0, str(Path(file).parent))
    spec = importlib.util.spec_from_file_location("started", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for late in getattr(module, "IMPORTED_LATE", ()):
        importlib.import_module(late)
    for count in counts:
        port = str(_free_port())
        children = []
        for rank in range(count):
            child = os.fork()
            if child == 0:
                os.environ.update(
                    RANK=str(rank),
                    LOCAL_RANK=str(rank),
                    WORLD_SIZE=str(count),
                    MASTER_ADDR="127.0.0.1",
                    MASTER_PORT=port,
                    GLOO_SOCKET_IFNAME="lo",
                )
                _rank(getattr(module, name), folder, rank, count, arguments)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        (folder / f"{count}.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    file, name, folder, counts, arguments = sys.argv[1:]
    _main(file, name, Path(folder), json.loads(counts), json.loads(arguments))
