"""What a step of every one-shot strategy costs, in time and memory, against DSARA's; prints Markdown.

    .venv/bin/python scripts/bench_strategies.py [--quick] [--device cuda] [--rounds 5] [--only dsara gdas] [--out FILE]

Every one-shot strategy of the registry that trains a supernet of ours, with its defaults, over the space `dsara`, on
random images, in the last epoch: alphas move, and DSARA is in stage 2. A step is a whole one: both halves attacked by
PGD-7, the alphas' step, the weights' step. Seconds are CPU time of the process on one thread, on a GPU wall time of
finished work, all strategies in one process in turn; the ratio to DSARA is the median over the rounds, with the least
and the most of them. Peak memory is that of one process for one strategy, beyond what it held before (its first step at
this size, momentum included): on a CPU the resident set, on a GPU allocations.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from robust_nas import environment
from robust_nas.attacks import PGD
from robust_nas.attacks.batch_generator import BatchGenerator
from robust_nas.config import check
from robust_nas.nets import channels_last
from robust_nas.run_folder import write_atomic
from robust_nas.search import STRATEGIES, Batch, OneShotSearch, OneShotStrategy, with_strategy
from robust_nas.spaces import load_space
from robust_nas.timing import interleaved, peak_resident

ATTACK = PGD(eps=8 / 255, step_size=2 / 255, steps=7, keep="last")
BASE = "dsara"


class Size(NamedTuple):
    """Depth and width of the supernet, and the batch of each half, of 3 x side x side."""

    channels: int
    cells: int
    batch: int
    side: int


def names() -> list[str]:
    """Return the one-shot strategies that train a supernet of ours."""
    kinds = {name: STRATEGIES.get(name) for name in STRATEGIES.names()}
    return [name for name, kind in kinds.items() if kind.kind == "one-shot" and kind.own_supernet]


def strategy_of(name: str, size: Size) -> OneShotStrategy:
    """Return a strategy with its defaults at a size."""
    section = {"cells": size.cells, "channels": size.channels, "batch_size": size.batch}
    found = check(STRATEGIES.get(name), with_strategy(section, name), name)
    assert isinstance(found, OneShotStrategy)  # noqa: S101
    return found.model_copy(update={"attack": ATTACK})


def step_of(name: str, size: Size, device: torch.device) -> Callable[[], object]:
    """Return one step of the last epoch; each call moves weights and alphas."""
    strategy, space = strategy_of(name, size), load_space("dsara")
    supernet = strategy.build_supernet(space, classes=10, mean=(0.0,) * 3, std=(1.0,) * 3, seed=0).to(device)
    generator = BatchGenerator(device)
    generator.manual_seed(0)
    search = OneShotSearch(strategy, channels_last(supernet), space, generator=generator)
    search.epoch = strategy.epochs - 1
    strategy.begin_epoch(search)

    def draw(*halves: str) -> list[Batch]:
        """Attack all halves in one batch, as the loop does."""
        x = torch.rand(len(halves) * size.batch, 3, size.side, size.side, device=device, generator=generator)
        x = x.contiguous(memory_format=torch.channels_last)
        labels = torch.randint(10, (len(x),), device=device, generator=generator)
        parts = (x, search.attack(x, labels, generator), labels)
        return [Batch(*own) for own in zip(*(torch.split(part, size.batch) for part in parts), strict=True)]

    return lambda: strategy.step(search, draw)


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return CPU time, or wall time after all that was launched has run."""
    if device.type == "cpu":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def peak_memory(name: str, size: Size, device: str) -> float:
    """Return MiB of a step beyond what the process held before, measured in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (name, size, device))


def _peak(name: str, size: Size, device: str) -> float:
    torch.set_num_threads(1)
    where = torch.device(device)
    step_of(name, size._replace(batch=2), where)()  # what the first call of a process alone allocates
    call = step_of(name, size, where)
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
        allocated = torch.cuda.memory_allocated(where)
        call()
        return (torch.cuda.max_memory_allocated(where) - allocated) / 2**20
    return peak_resident(call)


def table(chosen: list[str], size: Size, rounds: int, device: str) -> str:
    """Return the Markdown table of the strategies."""
    where = torch.device(device)
    torch.set_num_threads(1)
    timings = interleaved(
        {name: step_of(name, size, where) for name in chosen}, rounds, clock=clock_of(where)
    )
    base = timings[BASE]
    unit = "CPU s" if where.type == "cpu" else "s"
    processor = torch.cuda.get_device_name(where) if where.type == "cuda" else environment.processor()
    lines = [
        f"channels {size.channels}, cells {size.cells}, batch {size.batch}, 3x{size.side}x{size.side}, {rounds} "
        f"rounds; torch {torch.__version__}, {processor}, one thread\n",
        f"| strategy | {unit} a step | of DSARA's step | peak memory of a step, MiB |",
        "|---|---|---|---|",
    ]
    for name, timing in timings.items():
        by_round = [own / other for own, other in zip(timing.seconds, base.seconds, strict=True)]
        ratio = f"{timing.ratio(base):.2f} ({min(by_round):.2f} to {max(by_round):.2f})"
        memory = peak_memory(name, size, device)
        lines.append(f"| {name} | {timing.median:.3f} | {ratio} | {memory:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write to `--out`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small size")
    parser.add_argument("--only", nargs="+", default=names(), help="strategies; DSARA is always measured")
    parser.add_argument("--out", type=Path, help="a file for the table")
    options = parser.parse_args()
    cuda = torch.device(options.device).type == "cuda"
    size = Size(8, 4, 8, 16) if options.quick else Size(16, 8, 128 if cuda else 16, 32)
    text = table(list(dict.fromkeys([BASE, *options.only])), size, options.rounds, options.device)
    print(text)
    if options.out:
        write_atomic(options.out, text.encode())


if __name__ == "__main__":
    main()
