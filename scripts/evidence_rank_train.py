"""How do the ranking methods that train agree with tables of adversarially trained networks?

    .venv/bin/python scripts/evidence_rank_train.py --images CIFAR10_FOLDER --robust NASROBBENCH201.csv.gz
        --tiny TINY_ROBUSTBENCH.csv.gz [--parts train-nb201 ...] [--minutes 30] [--count 12] [--sample first]

    train-nb201        short trainings of 100 architectures of NAS-RobBench-201, against val_pgd_8_acc
    train-tiny         the same of 40 networks of Tiny-RobustBench, against adversarial_best
    supernet-nb201     a supernet trained adversarially, 300 architectures
    supernet-clean     one trained on clean images at equal cost, the same 300

Settings are fixed below; they were chosen on the sample `first`, what is reported is of the sample `second`, which
shares no architecture with it. Samples of NAS-RobBench-201 are stratified (lower half, upper half below the top
tenth, top tenth; a third each) and weighted back to the table.

Runs are in results/rank/, outcomes in results/reference/rank/: `PART.csv` with a row an architecture, `train.md` with
the agreement. What is finished is kept: the same command goes on.
--minutes begins no architecture after so many; --count takes fewer, and the files then end in `-COUNT`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robust_nas.config import Options
from robust_nas.data import Augment, DataOptions, load_dataset
from robust_nas.runs import Run, write_atomic
from robust_nas.search.ranking.method import RankingContext
from robust_nas.search.ranking.rank_sum import zero_cost
from robust_nas.search.ranking.ranks import rank_shares
from robust_nas.search.ranking.supernet import SupernetRanking
from robust_nas.search.ranking.train import TrainRanking
from robust_nas.spaces import CellArchitecture, CellSpace, Edge, Size, count, load_space
from robust_nas.spaces.nas_bench_201 import NASBench201Architecture
from robust_nas.training.losses.natural import Natural

RUNS, REFERENCE = Path("results/rank"), Path("results/reference/rank")
STEPS = 400
TRAIN = TrainRanking(rungs=(STEPS,))
SUPERNET = SupernetRanking(steps=12_000, clean_steps=4_000)
CLEAN = SupernetRanking(steps=24_000, clean_steps=4_000, loss=Natural())  # two passes a step instead of four
IMAGES = 50_000
VALIDATION = 2_000  # images that are left out, as nothing is chosen on them
SEED, BOOTSTRAP = 0, 2_000
COUNTS = {"train-nb201": 100, "train-tiny": 40, "supernet-nb201": 300, "supernet-clean": 300}
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """An architecture with its measured robust accuracy, and its weight in the sample."""

    name: str
    architecture: CellArchitecture
    truth: float
    weight: float


class Minutes(Exception):  # noqa: N818 - no error
    """The time that was given is over."""


def robust_rows(path: Path, size: int, sample: str) -> list[Row]:
    """Return a stratified sample of NAS-RobBench-201, in an order of which any beginning is balanced."""
    with gzip.open(path, "rt") as file:
        rows = [
            (row["arch_id"], row["arch_str"], float(row["advtrain/cifar10/val_pgd_8_acc"]))
            for row in csv.DictReader(file)
        ]
    rows.sort(key=lambda row: row[2])
    cuts = [0, len(rows) // 2, len(rows) * 9 // 10, len(rows)]
    chosen = []
    for low, high in pairwise(cuts):
        order = np.random.default_rng(1).permutation(np.arange(low, high))
        order = order[: len(order) // 2] if sample == "first" else order[len(order) // 2 :]
        each = -(-size // 3)
        chosen.append([(int(index), (high - low) / each / len(rows)) for index in order[:each]])
    picked = [pair for triple in zip(*chosen, strict=True) for pair in triple][:size]
    return [
        Row(rows[index][0], NASBench201Architecture.from_string(rows[index][1]), rows[index][2], weight)
        for index, weight in picked
    ]


def tiny_rows(path: Path, size: int, sample: str, space: CellSpace) -> list[Row]:
    """Return a random sample of Tiny-RobustBench."""
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    order = np.random.default_rng(1).permutation(len(rows))
    order = order[: len(order) // 2] if sample == "first" else order[len(order) // 2 :]
    found = []
    for row in (rows[index] for index in order[:size]):
        genotype = {}
        for kind, column in (("normal", "normal"), ("reduce", "reduce")):
            edges = [Edge(operation, source) for operation, source in json.loads(row[column])]
            genotype[kind] = [
                sorted(edges[i : i + 2], key=lambda edge: edge.source) for i in range(0, len(edges), 2)
            ]
        architecture = space.architecture(f"tiny-{row['seed']}", genotype, Size(cells=8, channels=16))
        found.append(Row(row["seed"], architecture, float(row["adversarial_best"]), 1.0))
    return found


def measured(
    part: str, rows: Sequence[Row], context: RankingContext, out_of_time: Callable[[], bool]
) -> list[dict[str, Any]]:
    """Return a record for every row, in their order; `Minutes` is raised when the time is over."""
    candidates = [row.architecture for row in rows]
    began = time.process_time()
    prior = zero_cost(candidates, context)
    prior_seconds = (time.process_time() - began) / len(rows)
    if part.startswith("supernet"):
        method = CLEAN if part == "supernet-clean" else SUPERNET
        began = time.process_time()
        losses, gate = method.supernet_losses(candidates, context)
        print(f"{part}: {gate.words}; {time.process_time() - began:.0f} CPU seconds in this call", flush=True)
        found = [(-sum(own) / len(own), 0.0) for own in losses]
    else:
        log, found = context.log(part), []
        known = dict(log.records)
        batches = TRAIN.batches(context.reduced(TRAIN.side), context)
        for number, row in enumerate(rows, start=1):
            if row.name not in known:
                if out_of_time():
                    raise Minutes
                began = time.process_time()
                score = TRAIN.training_score(row.architecture, STEPS, batches, context)
                known[row.name] = {"score": score, "seconds": time.process_time() - began}
                log.append(row.name, known[row.name])
                print(f"{part} {number}/{len(rows)}: {score}, {known[row.name]['seconds']:.1f} s", flush=True)
            found.append((known[row.name]["score"], known[row.name]["seconds"]))
    shape = (3, *context.images.pixels.shape[2:])
    costs = [count(row.architecture, shape, context.classes) for row in rows]
    return [
        {
            "id": row.name, "truth": row.truth, "weight": row.weight, "params": cost.params, "macs": cost.macs,
            "zero_cost": zero, "score": score, "seconds": round(seconds, 2),
            "zero_cost_seconds": round(prior_seconds, 3),
        }
        for row, cost, zero, (score, seconds) in zip(rows, costs, prior.tolist(), found, strict=True)
    ]  # fmt: skip


def spearman(x: Floats, y: Floats, w: Floats) -> float:
    """Return the correlation of weighted ranks."""
    a, b = (_weighted_ranks(values, w) for values in (x, y))
    a, b = a - np.average(a, weights=w), b - np.average(b, weights=w)
    scale = np.sqrt(np.average(a * a, weights=w) * np.average(b * b, weights=w))
    return float(np.average(a * b, weights=w) / scale) if scale > 1e-12 else 0.0


def _weighted_ranks(values: Floats, weights: Floats) -> Floats:
    _, inverse = np.unique(values, return_inverse=True)
    sums = np.bincount(inverse, weights)
    ranks: Floats = (np.cumsum(sums) - sums / 2)[inverse]
    return ranks


def agreement(score: Floats, params: Floats, truth: Floats, weights: Floats) -> Floats:
    """Return Spearman overall, in the top half, and given params in both; NaN where a half is too small."""
    values = []
    order = np.argsort(truth)
    share = np.cumsum(weights[order]) / weights.sum()
    top = np.isin(np.arange(len(truth)), order[share > 0.5])
    for chosen in (np.full(len(truth), True), top):
        s, p, t, w = (each[chosen] for each in (score, params, truth, weights))
        if len(s) < 4:
            return np.full(4, np.nan)
        st, sp, pt = spearman(s, t, w), spearman(s, p, w), spearman(p, t, w)
        rest = np.sqrt(max((1 - sp**2) * (1 - pt**2), 0))
        values.append((st, (st - sp * pt) / rest if rest > 1e-9 else 0.0))
    return np.array([values[0][0], values[1][0], values[0][1], values[1][1]])


def report(part: str, records: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of a part's table: every score with bootstrap intervals, and its difference to params."""
    columns = {
        key: np.array([np.nan if r[key] is None else float(r[key]) for r in records])
        for key in list(records[0])[1:]
    }
    truth, weights, params = columns["truth"], columns["weight"], columns["params"]
    trained = np.where(np.isnan(columns["score"]), -np.inf, columns["score"])
    scores = {
        "params": params,
        "MACs": columns["macs"],
        "zero-cost": columns["zero_cost"],
        part: trained,
        f"{part} + zero-cost": rank_shares(trained.tolist()) + columns["zero_cost"],
    }
    rng = np.random.default_rng(7)
    draws = [rng.integers(len(truth), size=len(truth)) for _ in range(BOOTSTRAP)]
    base = np.array([agreement(params[i], params[i], truth[i], weights[i]) for i in draws])
    lines = [
        f"{part}, n = {len(truth)}; CPU seconds an architecture: {columns['seconds'].mean():.1f}, "
        f"zero-cost {columns['zero_cost_seconds'].mean():.2f}",
        "",
        "| score | all | top half | given params | the same, top half | minus params, all | minus params, top half |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, score in scores.items():
        own = agreement(score, params, truth, weights)
        boot = np.array([agreement(score[i], params[i], truth[i], weights[i]) for i in draws])
        low, high = np.nanpercentile(boot, [2.5, 97.5], axis=0)
        lower, higher = np.nanpercentile(boot - base, [2.5, 97.5], axis=0)
        cells = [f"{own[k]:.2f} [{low[k]:.2f}, {high[k]:.2f}]" for k in range(4)]
        differences = [f"[{lower[k]:+.2f}, {higher[k]:+.2f}]" for k in range(2)]
        lines.append(f"| {name} | {' | '.join(cells + differences)} |")
    return [*lines, ""]


def main(arguments: Sequence[str]) -> int:
    """Run the parts and write what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--robust", type=Path, required=True)
    parser.add_argument("--tiny", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=COUNTS, default=list(COUNTS))
    parser.add_argument("--sample", choices=("first", "second"), default="second")
    parser.add_argument("--count", type=int)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    given = parser.parse_args(arguments)
    began = time.monotonic()
    dataset = load_dataset(DataOptions(name="image-folder", path=str(given.images.resolve())))
    images = dataset.train.draw(len(dataset.train), SEED)
    images = images.subset(np_range(VALIDATION, min(len(images), IMAGES)))
    suffix = ("" if given.sample == "second" else "-first") + (f"-{given.count}" if given.count else "")
    lines: list[str] = []
    for part in given.parts:
        size = given.count or COUNTS[part]
        tiny = part == "train-tiny"
        space = load_space("darts" if tiny else "nas-bench-201")
        rows = (
            tiny_rows(given.tiny, size, given.sample, space)
            if tiny
            else robust_rows(given.robust, size, given.sample)
        )
        with Run(RUNS / (part + suffix), Options(), "resume") as run:
            context = RankingContext(
                run=run, images=images, classes=dataset.classes, mean=(0.5,) * 3, std=(0.25,) * 3, seed=SEED,
                space=space, augmentation=Augment(crop=4, flip=True),
            )  # fmt: skip
            try:
                records = measured(part, rows, context, lambda: time.monotonic() - began > 60 * given.minutes)
            except Minutes:
                print(
                    f"{part}: stopped after {given.minutes:g} minutes; the same command goes on", flush=True
                )
                break
        REFERENCE.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        write_atomic(REFERENCE / f"{part}{suffix}.csv", text.getvalue().encode())
        lines += report(part, records)
        print("\n".join(lines), flush=True)
        write_atomic(REFERENCE / f"train{suffix}.md", "\n".join(lines).encode())
    return 0


def np_range(first: int, last: int) -> Any:
    """Return the numbers from `first` to before `last` as a tensor."""
    import torch

    return torch.arange(first, last)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
