"""Runs a function of a test file in several processes that talk by gloo, as torchrun would start them."""

import functools
import socket

import torch
from forks import end, start

from robust_nas.distributed import joined


def in_ranks(function, folder, counts, **arguments):
    """Calls `function(ranks, **arguments)` of a test file in 1, 2, ... processes, as `counts` says.

    Returns {count: [(what it returned, exit code, what it printed) of every rank]}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return {count: _in_ranks(functools.partial(function, **arguments), folder, count) for count in counts}


def _in_ranks(function, folder, count):
    logs = [folder / f"{count}-{rank}.txt" for rank in range(count)]
    results = [folder / f"{count}-{rank}.pt" for rank in range(count)]
    for path in results:
        path.unlink(missing_ok=True)  # of an earlier call
    common = {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    started = [
        start(logs[rank], _rank, function, results[rank], RANK=str(rank), LOCAL_RANK=str(rank), **common)
        for rank in range(count)
    ]
    codes = [end(process) for process in started]
    values = [torch.load(path, weights_only=True) if path.exists() else None for path in results]
    return list(zip(values, codes, [log.read_text() for log in logs], strict=True))


def results(found):
    """{count: [result of every rank]} where all went well."""
    for ranks in found.values():
        assert all(code == 0 for _, code, _ in ranks), [text for _, _, text in ranks]
    return {count: [value for value, _, _ in ranks] for count, ranks in found.items()}


def _rank(function, result):
    with joined() as ranks:
        torch.save(function(ranks), result)


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
