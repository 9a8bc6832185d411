"""Rankings for the docs: how well do they order the networks of a table that was trained adversarially?

    .venv/bin/python scripts/evidence_rank.py nb201 --table NASROBBENCH201.csv.gz --images CIFAR10/ --parts zero-cost
    .venv/bin/python scripts/evidence_rank.py tiny --table TINY_ROBUSTBENCH.csv.gz --images CIFAR10/ --minutes 30

Tables: `nb201`, NAS-RobBench-201 in any form (`advtrain/cifar10/val_pgd_8_acc`), and `tiny`, Tiny-RobustBench
(`adversarial_best`). Images: CIFAR-10 as an image folder.

    zero-cost        params, jacobian covariance and synflow, of all networks of the table
    proxies          every proxy of the registry
    train            short adversarial trainings
    supernet         a supernet under adversarial training
    supernet-clean   one that was trained on clean images, at equal cost

The settings are fixed below. They were chosen on the sample `first`; what is reported is of the sample `second`, which
shares no network with it. Samples are stratified by the truth, a part of each stratum, and weighted back to the table.
Every part has params and MACs on its own sample, and the rank sums of which it consists.

Work is in results/rank/, by network: the same command goes on where it was killed, or where --minutes ended it. A part
that is finished writes results/reference/rank/TABLE-PART/: `agreement.csv` (`statistics.agreements`), `scores.csv`,
`settings.yaml`. Another sample than `second`, and --count, are in the folder's name.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import robust_nas
from robust_nas.config import to_yaml
from robust_nas.files import write_atomic
from robust_nas.run_folder import Run
from robust_nas.search import PROXIES, RankingContext, RankingMethod, Table
from robust_nas.search.ranking.method import Columns
from robust_nas.search.ranking.ranks import rank_shares
from robust_nas.search.ranking.supernet import SupernetRanking
from robust_nas.search.ranking.train import TrainRanking
from robust_nas.search.ranking.zero_cost import ZeroCost
from robust_nas.spaces import Cost, count
from robust_nas.statistics import agreements, population_weights
from robust_nas.training.losses.natural import Natural
from robust_nas.workflows.benchmark import CONTROL, ScoreBenchmark
from robust_nas.workflows.context import load_context, session
from robust_nas.workflows.rank import RankJob, to_csv
from robust_nas.workflows.rank_candidates import Candidates, KnownTruth, RankConfig, Truth

RUNS, REFERENCE = Path("results/rank"), Path("results/reference/rank")
SETTINGS = ("device=cpu", "threads=1", "seed=0", "data.name=image-folder", "data.normalise=dataset")
TRAINED = ("data.augment.crop=4", "data.augment.flip=true")
UNTRAINED = ("data.limit=2000",)  # images
SAMPLES = ("first", "second")
CONTROLS = (CONTROL, "macs")
DRAWS = 2000  # of the bootstrap
Floats = NDArray[np.float64]


class Known(NamedTuple):
    """A table: its truth, and the shares of its order by it at which strata end."""

    column: str
    cuts: tuple[float, ...]


class Part(NamedTuple):
    """A ranking method, its images, and how many networks of each table it ranks; None: all."""

    method: RankingMethod
    settings: tuple[str, ...]
    counts: dict[str, int | None]


KNOWN = {
    "nb201": Known("advtrain/cifar10/val_pgd_8_acc", (0.5, 0.9, 1.0)),
    "tiny": Known("adversarial_best", (1.0,)),
}
PARTS = {
    "zero-cost": Part(ZeroCost(), UNTRAINED, {"nb201": None, "tiny": None}),
    "proxies": Part(
        ZeroCost(proxies=tuple(PROXIES.make(name) for name in PROXIES.built_in)),
        UNTRAINED,
        {"nb201": 300, "tiny": None},
    ),
    "train": Part(TrainRanking(rungs=(400,)), TRAINED, {"nb201": 100, "tiny": 40}),
    "supernet": Part(SupernetRanking(clean_steps=4_000, steps=12_000), TRAINED, {"nb201": 300, "tiny": None}),
    "supernet-clean": Part(  # a clean step has two passes, an adversarial one has four
        SupernetRanking(clean_steps=4_000, steps=24_000, loss=Natural()),
        TRAINED,
        {"nb201": 300, "tiny": None},
    ),
}


class OutOfTime(Exception):  # noqa: N818 - no error
    """The minutes that were given are over."""


class Clock:
    """Ends a ranking after the minutes that were given, at the next thing that it begins; keeps its last words."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes
        self.words = ""

    def __call__(self, job: str, done: int, total: int, note: str = "") -> None:
        """Print the progress of a job now and then. Raises `OutOfTime`."""
        if job == "score" and note:
            self.words = note
        if done == total or done % max(1, total // 20) == 0:
            print(f"  {job} {done}/{total} {note}".rstrip(), flush=True)
        if done < total and time.monotonic() > self.end:
            raise OutOfTime


@dataclass(frozen=True)
class Sample:
    """Rows of a table, and the networks of the table that each of them represents."""

    rows: list[int]
    weights: Floats


def sample(table: Table, known: Known, count: int | None, which: str) -> Sample:
    """Return a stratified sample, in an order of which any beginning is balanced; without a count all rows."""
    truth = table.column(known.column)
    order = np.argsort(truth, kind="stable")
    if count is None:
        return Sample(list(range(len(table))), np.ones(len(table)))
    rng, halves = np.random.default_rng(1), []
    cuts = [0, *(int(share * len(order)) for share in known.cuts)]
    for low, high in pairwise(cuts):
        drawn = rng.permutation(order[low:high])
        middle = len(drawn) // 2
        halves.append((drawn[:middle] if which == SAMPLES[0] else drawn[middle:]).tolist())
    dealt = [(row, stratum) for turn in zip(*halves, strict=False) for stratum, row in enumerate(turn)][
        :count
    ]
    if len(dealt) < count:
        raise SystemExit(f"--count: got {count}; the sample has {len(dealt)} networks")
    sizes = {stratum: high - low for stratum, (low, high) in enumerate(pairwise(cuts))}
    return Sample([row for row, _ in dealt], population_weights([stratum for _, stratum in dealt], sizes))


def compared(label: str, columns: Columns, params: Floats) -> dict[str, Floats]:
    """Return the scores of a method's columns: its parts alone and in rank sums; higher is better."""
    if "loss" in columns:
        own = rank_shares([None if loss is None else -loss for loss in columns["loss"]])
        prior = np.array(columns["zero-cost"], dtype=float)
        return {"zero-cost": prior, label: own, f"zero-cost + {label}": prior + own}  # the gate is not asked
    found = {}
    for name in PROXIES.built_in:
        values = columns.get(f"proxy_{name.replace('-', '_')}")
        if values is not None and name not in CONTROLS:
            sign = 1.0 if PROXIES.get(name).higher_is_better else -1.0
            found[name] = rank_shares([None if value is None else sign * value for value in values])
    sums = {f"params + {name}": rank_shares(params.tolist()) + own for name, own in found.items()}
    return {**found, **sums, label: rank_shares(columns["score"])}


def measure(name: str, part: Part, which: str, given: argparse.Namespace, clock: Clock) -> None:
    """Rank the sample of a part, and write its outcome. Raises `OutOfTime`."""
    known = KNOWN[which]
    config = robust_nas.load_ranking(
        [str(given.table)],
        column=known.column,
        overrides=[*SETTINGS, *part.settings, f"name={which}", f"data.path={given.images}"],
    ).model_copy(update={"method": part.method})
    table = Truth(column=known.column).table(str(given.table))
    number = part.counts[which] if given.count is None else given.count
    drawn = sample(table, known, number, given.sample)
    label = f"{which}-{name}" + ("" if given.sample == SAMPLES[1] or number is None else f"-{given.sample}")
    label += "" if given.count is None else f"-{given.count}"
    print(f"{label}: {len(drawn.rows)} networks", flush=True)
    truth = KnownTruth(table.source, known.column, True, table.column(known.column)[drawn.rows].tolist(), 0)
    chosen = Candidates([table.architecture(row) for row in drawn.rows], table.space, truth)
    columns, seconds, costs = ranked(RUNS / label, config, chosen, clock)
    scores = {key: np.array([getattr(cost, key) for cost in costs], dtype=float) for key in CONTROLS}
    scores |= compared(name, columns, scores[CONTROL])
    found = agreements(scores, truth.values, CONTROL, weights=drawn.weights, draws=DRAWS)
    folder = REFERENCE / label
    folder.mkdir(parents=True, exist_ok=True)
    ScoreBenchmark(table.source, known.column, len(costs), 0, found).write(folder / "agreement.csv")
    listed = [
        {"id": table.ids[row], "truth": value, "weight": round(float(weight), 4)}
        | {key: float(f"{values[place]:.6g}") for key, values in scores.items()}
        for place, (row, value, weight) in enumerate(
            zip(drawn.rows, truth.values, drawn.weights, strict=True)
        )
    ]
    write_atomic(folder / "scores.csv", to_csv(listed).encode())
    about = {
        "column": known.column,
        "networks_of_the_table": len(table),
        "networks": len(costs),
        "sample": "all" if number is None else given.sample,
        "strata_end_at": list(known.cuts),
        "cpu_seconds_a_network": round(seconds / len(costs), 3),
        "verdict": clock.words,
        "settings": [*SETTINGS, *part.settings],
        "method": part.method.model_dump(mode="json"),
    }
    write_atomic(folder / "settings.yaml", to_yaml(about).encode())
    print((folder / "agreement.csv").read_text(), flush=True)


def ranked(
    folder: Path, config: RankConfig, chosen: Candidates, clock: Clock
) -> tuple[Columns, float, list[Cost]]:
    """Return the columns of the method, the CPU seconds of all calls that ended, and the costs of the networks.

    Raises `OutOfTime`.
    """
    with Run(folder, RankJob.of(config, chosen), "resume", recipe=config) as run:
        context = load_context(config)
        spent = folder / "cpu_seconds.json"
        before = float(json.loads(spent.read_text())) if spent.is_file() else 0.0
        began = time.process_time()
        with session(run, context):
            mean, std = context.normalisation
            try:
                columns = config.method.score(
                    chosen.architectures,
                    RankingContext(
                        run=run, images=context.images.to(context.device), classes=context.dataset.classes,
                        mean=mean, std=std, seed=config.seed, space=chosen.space,
                        augmentation=config.data.augment, checkpoint_seconds=15, progress=clock,
                    ),
                )  # fmt: skip
            finally:
                seconds = before + time.process_time() - began
                write_atomic(spent, json.dumps(seconds).encode())
    dataset = context.dataset
    costs = [count(one, dataset.shape, dataset.classes) for one in chosen.architectures]
    return columns, seconds, costs


def main(arguments: Sequence[str]) -> int:
    """Measure the parts that are asked for, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=KNOWN)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sample", choices=SAMPLES, default=SAMPLES[1])
    parser.add_argument(
        "--count", type=int, help="networks, instead of the number that is fixed for the part"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after so many")
    given = parser.parse_args(arguments)
    for name in given.parts:
        clock = Clock(given.minutes)
        try:
            measure(name, PARTS[name], given.which, given, clock)
        except OutOfTime:
            print(f"{name}: stopped after {given.minutes:g} minutes; the same command goes on", flush=True)
            break
        given.minutes = (clock.end - time.monotonic()) / 60
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
