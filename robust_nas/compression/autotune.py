"""The gain of a factorised layer: its time against the dense one's, both in turn, on this machine."""

from __future__ import annotations

import copy

import torch
from torch import nn

from robust_nas.timing import interleaved

ROUNDS, SECONDS = 5, 2e-3  # of a round, at least


def gain(dense: nn.Module, factorised: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the dense layer's time over the factorised one's, in eval mode on one input of `shape`, fastest rounds.

    CPU time of one thread. It is a measurement: another machine, or minute, may say otherwise.
    """
    dense, factorised = (copy.deepcopy(layer).cpu() for layer in (dense, factorised))
    x = torch.rand(shape, dtype=next(dense.parameters()).dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            once = interleaved({"dense": lambda: dense(x)}, rounds=3)["dense"].minimum
            repeats = max(1, round(SECONDS / max(once, 1e-6)))

            def run(layer: nn.Module) -> None:
                for _ in range(repeats):
                    layer(x)

            found = interleaved({"dense": lambda: run(dense), "own": lambda: run(factorised)}, rounds=ROUNDS)
    finally:
        torch.set_num_threads(threads)
    return found["dense"].minimum / found["own"].minimum
