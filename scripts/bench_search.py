"""What a first-order search costs with FGSM and with PGD-7 inside, at a recipe's size; prints Markdown.

    .venv/bin/python scripts/bench_search.py fashion [search.channels=6 ...] [--steps 8] [--out cost.md]

Timed are whole steps on the recipe's own images (all of them, whatever data.limit says): two attacks, the alpha step of
either stage, the weight step. From them follow an epoch, 50 epochs, and the peak memory. Each attack is measured in a
process of its own. Seconds are CPU time on one thread, else wall time of finished work. The recipe gives eps and all
else; FGSM starts at random, and PGD-7 has steps of eps / 4, as published.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import robust_nas
from robust_nas.attacks import FGSMRS, PGD
from robust_nas.data import augment, split
from robust_nas.data.order import batches
from robust_nas.nets import channels_last
from robust_nas.run_folder import write_atomic
from robust_nas.search import DSARA, Batch, OneShotSearch
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.context import JobContext, choose_device

EPOCHS = 50  # of the published search


def search_cost(config: RunConfig, steps: int) -> dict[str, Any]:
    """Seconds a step in each stage (median), steps an epoch on all images, and peak memory of this process in MiB."""
    device, options, seed = choose_device(config.device), config.search, config.seed
    assert isinstance(options, DSARA)  # noqa: S101
    if config.threads != "auto":
        torch.set_num_threads(config.threads)
    cpu_time = device.type == "cpu" and torch.get_num_threads() == 1

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.process_time() if cpu_time else time.perf_counter()

    dataset = robust_nas.load_dataset(config.data.model_copy(update={"limit": None}), seed=seed)
    space, context = config.space.load(), JobContext(config, dataset, device)
    mean, std = context.normalisation
    execution = config.supernet.execution
    supernet = options.build_supernet(
        space, classes=dataset.classes, mean=mean, std=std, seed=seed, execution=execution
    ).to(device)
    images = context.images.to(device)
    halves = [images.subset(indices) for indices in split(images.labels, 0.5, seed)]
    orders = [batches(len(half), options.batch_size, seed=seed, epoch=0) for half in halves]
    strategy = options.model_copy(update={"epochs": 2, "stage1_epochs": 1})
    algorithm = OneShotSearch(strategy, channels_last(supernet), space)
    generator = torch.Generator(device).manual_seed(seed)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for step in range(2 * (steps + 1)):
        stage, began, drawn = 1 + step % 2, clock(), []
        for half, order in zip(halves, orders, strict=True):
            part = half.subset(order[step % len(order)])
            natural = augment(part.pixels, options.augment or config.data.augment, generator)
            natural = natural.contiguous(memory_format=torch.channels_last)
            drawn.append(Batch(natural, algorithm.attack(natural, part.labels, generator), part.labels))
        algorithm.epoch = stage - 1
        algorithm.alpha_step(strategy.alpha_gradient(algorithm, drawn[1], drawn[0]).gradient)
        algorithm.weight_step(drawn[0])
        seconds[stage].append(clock() - began)
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else _peak_resident()
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else f"CPU, {torch.get_num_threads()} thread(s)",
        "clock": "CPU s" if cpu_time else "s",
        "stages": [statistics.median(seconds[stage][1:]) for stage in (1, 2)],
        "steps": min(map(len, orders)),
        "memory": peak,
    }  # fmt: skip


def _peak_resident() -> float:
    """MiB; not `getrusage`, which a process inherits from the one that started it."""
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) / 1024


def cost_table(config: RunConfig, steps: int) -> str:
    """Markdown: what a first-order search costs with each inner attack, each measured in a process of its own."""
    search = config.search
    if not isinstance(search, DSARA):
        raise SystemExit(f"search.name: got {search.name!r}; dsara alone is measured")
    eps = search.attack.eps
    if eps is None:
        raise SystemExit(
            f"search.attack: got {search.attack.name!r}, which has no eps; FGSM and PGD-7 need one"
        )
    attacks = {"FGSM": FGSMRS(eps=eps), "PGD-7": PGD(eps=eps, step_size=eps / 4, steps=7, keep="last")}
    lines: list[str] = []
    share = search.stage1_epochs / search.epochs
    for name, attack in attacks.items():
        inner = config.model_copy(update={"search": search.model_copy(update={"attack": attack, "order": 1})})
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(search_cost, (inner, steps))
        stages, unit = found["stages"], found["clock"]
        mean = share * stages[0] + (1 - share) * stages[1]
        if not lines:
            memory = "allocated on the GPU" if unit == "s" and "CPU" not in found["device"] else "resident"
            lines = [
                f"First order, batch {search.batch_size}, {search.channels} channels, {search.cells} cells, "
                f"{found['steps']:,} steps an epoch, {share:.0%} of the epochs in stage 1; {found['device']}; "
                f"median of {steps} steps a stage, seed {config.seed}, no spread over seeds.\n",
                f"| inner attack | {unit} a step, stage 1 | {unit} a step, stage 2 | {unit} an epoch | "
                f"projected hours of {EPOCHS} epochs | peak memory, MiB {memory} |",
                "|---|---|---|---|---|---|",
            ]
        epoch = mean * found["steps"]
        lines.append(
            f"| {name} | {stages[0]:.3f} | {stages[1]:.3f} | {epoch:.0f} | {epoch * EPOCHS / 3600:.2f} | "
            f"{found['memory']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write to `--out`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", help="values of the recipe, as a.b=c")
    parser.add_argument(
        "--steps", type=int, default=8, help="timed steps of each stage, after one that is not"
    )
    parser.add_argument("--out", type=Path, help="a file for the table")
    options = parser.parse_intermixed_args()
    text = cost_table(robust_nas.load_config(options.recipe, options.overrides), options.steps)
    print(text)
    if options.out:
        write_atomic(options.out, text.encode())


if __name__ == "__main__":
    main()
