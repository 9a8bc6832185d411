"""One-shot searches on tables of adversarially trained networks: what are their scores worth there?

    .venv/bin/python scripts/evidence_one_shot_tables.py nb201 --table TABLE.csv.gz --images CIFAR10/ --calibrate
    .venv/bin/python scripts/evidence_one_shot_tables.py nb201 --table TABLE.csv.gz --images CIFAR10/ --minutes 60
    .venv/bin/python scripts/evidence_one_shot_tables.py tiny --table TABLE.csv.gz --images CIFAR10/

Tables and their columns are those of `evidence_rank.py`, images CIFAR-10 as an image folder. Searches see 10,000 of its
training images as 2x2 means (16x16), Linf eps 4/255, FGSM-RS; a tenth of them is held out. Supernets have 16 channels
and a cell a stage (`nb201`), or 8 channels and 4 cells of the space `darts` (`tiny`).

nb201, a part a strategy: the true value of the row that its scores put first, its share of rows that are worse, and the
arg max of the search, if the table has it. The score of a row is sum over its edges of log(edge weight), of the row's
own string, not of others of its class. `single-path` scores 300 random rows by their adversarial loss. Next to them
`params`, `zero-cost` (the rank sum of `robust-nas rank`; where `evidence_rank.py` left it in
`results/reference/rank/nb201-zero-cost`, as it is there), and the mean of all rows, which is what a random one has.

tiny, a part a strategy: Kendall's tau of two scores with the truth of all rows, with bootstrap intervals: the sum
above, and minus the loss on 768 held-out images attacked by FGSM, with inherited weights.

A search has as many epochs as take 15 minutes of CPU, fixed by --calibrate, which runs two short ones, prints the CPU
minutes of a part, and writes `TABLE-epochs.yaml`. Searches are in results/one-shot-tables/, outcomes in
results/reference/one-shot-tables/: `TABLE-PART.json`, and all of a table in `TABLE.md`. What is finished is kept: the
same command goes on where it was killed, or where --minutes ended it.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from evidence_rank import KNOWN, PARTS, SETTINGS, TRAINED, UNTRAINED, Clock, OutOfTime, ranked
from one_shot_table_scores import HEADS, Floats, arg_max, line, picked, row_scores

import robust_nas
from robust_nas.attacks import FGSM
from robust_nas.checkpoints import read_checkpoint
from robust_nas.config import read_yaml, to_yaml
from robust_nas.data import Images
from robust_nas.errors import ConfigError
from robust_nas.files import write_atomic
from robust_nas.records import read_json, read_lines
from robust_nas.run_folder import CHECKPOINT, METRICS, write_json
from robust_nas.search import RankingMethod, Table
from robust_nas.search.ranking.method import reduced
from robust_nas.search.ranking.supernet import SupernetRanking
from robust_nas.search.ranking.zero_cost import ZeroCost
from robust_nas.spaces import count
from robust_nas.statistics import agreements
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.context import JobContext, load_context
from robust_nas.workflows.rank_candidates import Candidates, KnownTruth, Truth
from robust_nas.workflows.search import build_supernet

RUNS, REFERENCE = Path("results/one-shot-tables"), Path("results/reference/one-shot-tables")
SECONDS = 15 * 60.0  # of CPU, of a search
SIDE, BATCH, JUDGED, ROWS, DRAWS = 16, 64, 768, 300, 1000
COMMON = (
    *SETTINGS,
    *TRAINED,
    "data.limit=10000",
    "checkpoint_seconds=15",
    "threat_model={norm: linf, eps: 0.0156862745}",  # 4/255
    f"search.batch_size={BATCH}",
    "search.attack={name: fgsm-rs}",
    "search.weights.learning_rate=0.05",
    "search.alphas.learning_rate=0.01",
    "search.max_skips=null",
)
SPACES = {
    "nb201": ("space.name=nas-bench-201", "search.cells=3", "search.channels=16", "network={}"),
    "tiny": ("space.name=darts", "search.cells=4", "search.channels=8", "network={}"),
}
# By part: the strategy, and what differs. HALF is a part of the epochs.
SEARCHES: dict[str, tuple[str, tuple[str, ...]]] = {
    "dsara": ("dsara", ("search.stage1_epochs=HALF",)),
    "darts": ("darts", ()),
    "pc-darts": ("pc-darts", ()),
    "gdas": ("gdas", ()),
    "advrush": ("advrush", ("search.stage1_epochs=HALF",)),
    "nni:darts": ("nni:darts", ()),
    "nni:gumbel-darts": ("nni:gumbel-darts", ()),
    "nni:proxyless": ("nni:proxyless", ()),
}
PATHS = "single-path"
RANKED = {"nb201": ("params", "zero-cost", PATHS), "tiny": ()}
READ: dict[str, JobContext] = {}
QUICK = ("data.limit=400", "search.batch_size=32")


class Job(NamedTuple):
    """What all parts of a call share."""

    which: str
    given: argparse.Namespace
    table: Table
    truth: Floats
    runs: Path
    out: Path
    extra: tuple[str, ...]

    @property
    def column(self) -> str:
        """Return the column that is the truth."""
        return KNOWN[self.which].column


def config_of(job: Job, part: str, epochs: int, extra: Sequence[str] = ()) -> RunConfig:
    """Return the config of a search."""
    strategy, changes = SEARCHES[part]
    given = [*COMMON, *SPACES[job.which], f"search.epochs={epochs}"]
    given += [change.replace("HALF", str(epochs // 2)) for change in changes]
    name = f"{job.which}-{part.replace(':', '-')}"
    given += [*job.extra, *extra, f"name={name}", f"data.path={job.given.images}"]
    return robust_nas.load_config("quickstart", given, strategy=strategy)


def small(config: RunConfig) -> JobContext:
    """Return the context of a config with its images reduced, which are read once."""
    key = f"{config.data.model_dump_json()} {config.seed}"
    if key not in READ:
        context = load_context(config)
        train, test = (reduced(part, SIDE) for part in (context.dataset.train, context.dataset.test))
        small_set = dataclasses.replace(context.dataset, train=train, test=test)
        READ[key] = dataclasses.replace(context, dataset=small_set)
    return dataclasses.replace(READ[key], config=config)


def searched(job: Job, part: str, epochs: int, clock: Clock) -> tuple[Any, RunConfig, float]:
    """Return what a search found, its config, and its CPU seconds over all calls. Raises `OutOfTime`."""
    config = config_of(job, part, epochs)
    folder = job.runs / config.name
    context = small(config)
    found, seconds = timed(
        folder.with_suffix(".seconds"),
        lambda: robust_nas.run_search(
            config, folder, seeds=1, mode="resume", progress=clock, context=context
        ),
    )
    return found, config, seconds


def timed(spent: Path, work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what `work` returns, and its CPU seconds over all calls, which a file keeps."""
    before, began = float(spent.read_text()) if spent.is_file() else 0.0, time.process_time()
    spent.parent.mkdir(parents=True, exist_ok=True)
    try:
        found = work()
    finally:
        seconds = before + time.process_time() - began
        write_atomic(spent, f"{seconds}".encode())
    return found, seconds


def search_part(job: Job, part: str, epochs: int, clock: Clock) -> dict[str, Any]:
    """Return the record of a strategy on a table. Raises `OutOfTime`."""
    found, config, seconds = searched(job, part, epochs, clock)
    scores = row_scores(job.table, read_json(found.folder / "alphas.json"))
    record: dict[str, Any] = {
        "epochs": epochs,
        "cpu_seconds": round(seconds),
        "fitness": found.record.get("fitness"),
    }
    if job.which == "nb201":
        record |= picked(job.table, job.truth, range(len(job.table)), scores)
        return {**record, "arg_max": arg_max(job.table, job.column, found.architecture)}
    tested = {"params": params_of(job), "alphas": scores}
    if config.search.shares_weights:
        losses = inherited_losses(job, config, found.folder, clock)
        tested["inherited"] = -np.array(losses)
    agreed = agreements(tested, job.truth, "params", draws=DRAWS)
    kendall = {name: one.measures["kendall"]._asdict() for name, one in agreed.items()}
    return {**record, "rows": len(job.table), "kendall": kendall}


def inherited_losses(job: Job, config: RunConfig, folder: Path, clock: Clock) -> list[float]:
    """Return the adversarial loss of every row with the weights of a finished search; a file keeps what is done."""
    from robust_nas.nets import channels_last
    from robust_nas.nets.inherited import estimate_statistics, sub_network

    context, space, strategy = small(config), config.space.load(), cast("Any", config.search)
    supernet = cast("Any", build_supernet(config, space, context))
    supernet.load_state_dict(read_checkpoint(folder / CHECKPOINT)["supernet"])
    calibration = context.images.draw(512, config.seed)
    judged = context.validation.draw(32 if job.extra else JUDGED, config.seed)
    attack = FGSM(norm=strategy.attack.norm, eps=strategy.attack.radius)
    path = folder.with_name(f"{folder.name}-inherited.json")
    losses = read_json(path)["losses"] if path.is_file() else []
    for row in range(len(losses), len(job.table)):
        clock("inherited", row, len(job.table))
        network = channels_last(sub_network(supernet, job.table.architecture(row)))
        estimate_statistics(network, calibration, 2 * BATCH)
        losses.append(adversarial_loss(network, attack, judged))
        write_json(path, {"losses": losses})
    return [float(loss) for loss in losses]


def adversarial_loss(network: torch.nn.Module, attack: FGSM, images: Images) -> float:
    """Return the mean cross-entropy of a network in eval mode on attacked images; all networks see the same draws."""
    total, generator = 0.0, torch.Generator().manual_seed(0)
    for indices in torch.split(torch.arange(len(images)), 2 * BATCH):
        x, labels = (
            images.float(indices).contiguous(memory_format=torch.channels_last),
            images.labels[indices],
        )
        adversarial = attack(network, x, labels, generator)
        with torch.no_grad():
            total += float(torch.nn.functional.cross_entropy(network(adversarial), labels, reduction="sum"))
    return total / len(images)


def params_of(job: Job) -> Floats:
    """Return the parameters of every row."""
    rows = [count(job.table.architecture(row), (3, 32, 32), 10).params for row in range(len(job.table))]
    return np.array(rows, dtype=float)


def ranked_part(job: Job, part: str, paths: int, clock: Clock) -> dict[str, Any]:
    """Return the record of a score of rows without a one-shot search. Raises `OutOfTime`."""
    every = list(range(len(job.table)))
    mean = {"mean_of_all": float(job.truth.mean())}
    if part == "params":
        return {**picked(job.table, job.truth, every, params_of(job)), **mean}
    known = REFERENCE.parent / "rank" / f"{job.which}-{part}" / "scores.csv"
    if part == "zero-cost" and known.is_file():
        with known.open(newline="") as file:
            by_id = {row["id"]: float(row[part]) for row in csv.DictReader(file)}
        return {
            **picked(job.table, job.truth, every, np.array([by_id[one] for one in job.table.ids])),
            **mean,
        }
    rows = every if part == "zero-cost" else np.random.default_rng(1).permutation(len(every))[:ROWS].tolist()
    if job.extra:
        rows = rows[:6]
    label = f"{job.which}-{part}"
    columns, seconds, _ = scored(job, job.runs / label, rows, method_of(job, part, paths), clock)
    scores = columns["score"] if part == "zero-cost" else [-loss for loss in columns["loss"]]
    record = picked(job.table, job.truth, rows, np.array(scores, dtype=float))
    extra = {} if part == "zero-cost" else {"paths": paths, "verdict": clock.words}
    if part == PATHS:
        own = params_of(job)[rows]
        extra["params_of_these_rows"] = picked(job.table, job.truth, rows, own)["truth"]
    return {**record, **extra, "cpu_seconds": round(seconds)}


def method_of(job: Job, part: str, paths: int) -> RankingMethod:
    """Return what ranks the rows: a third of the paths is clean, as in the strategy `single-path`."""
    if part == "zero-cost":
        zero_cost = cast("ZeroCost", PARTS["zero-cost"].method)
        return zero_cost.model_copy(update={"draws": 1}) if job.extra else zero_cost
    clean = max(1, paths // 3)
    return SupernetRanking(
        clean_steps=clean, steps=paths - clean, zero_cost=ZeroCost(draws=1, cells_per_stage=1)
    )


def scored(
    job: Job, folder: Path, rows: list[int], method: RankingMethod, clock: Clock
) -> tuple[Any, float, Any]:
    """Return the columns of a ranking method for some rows, its CPU seconds, and the costs. Raises `OutOfTime`."""
    images = TRAINED if isinstance(method, SupernetRanking) else UNTRAINED
    limit = ("data.limit=1000",) if job.extra else ("data.limit=10000",) if images is TRAINED else ()
    config = robust_nas.load_ranking(
        [str(job.given.table)],
        column=job.column,
        overrides=[*SETTINGS, *images, *limit, f"name={job.which}", f"data.path={job.given.images}"],
    ).model_copy(update={"method": method})
    truth = KnownTruth(job.table.source, job.column, True, job.truth[rows].tolist(), 0)
    chosen = Candidates([job.table.architecture(row) for row in rows], job.table.space, truth)
    return ranked(folder, config, chosen, clock)


def calibrated(job: Job, part: str) -> int:
    """Return the epochs, or the paths, that take SECONDS of CPU; print the minutes. Two short searches are run."""
    folder, seconds, steps = job.runs / "calibration", list[float](), list[int]()
    for size in (1, 2):
        shutil.rmtree(folder, ignore_errors=True)
        began = time.process_time()
        if part == PATHS:
            steps.append(30 * size)
            scored(job, folder, [0, 1, 2], method_of(job, part, steps[-1]), Clock(math.inf))
        else:
            config = config_of(job, part, size, ["data.limit=1500"])
            context = small(config)
            began = time.process_time()
            robust_nas.run_search(config, folder, seeds=1, context=context)
            steps.append(len(read_lines(folder / METRICS)))
        seconds.append(time.process_time() - began)
    shutil.rmtree(folder, ignore_errors=True)
    a_step = max((seconds[1] - seconds[0]) / (steps[1] - steps[0]), 1e-4)
    whole = 1 if part == PATHS else 10_000 * 9 // 10 // 2 // BATCH  # steps of an epoch of the whole search
    share = 0.7 if part == PATHS else 1.0  # of the seconds; the others score rows
    found = max(2, int(share * SECONDS / (a_step * whole)))
    minutes = (found * whole * a_step + seconds[0] - steps[0] * a_step) / 60
    unit = "paths" if part == PATHS else "epochs"
    print(f"{part}: {a_step:.2f} s of CPU a step; {found} {unit}: {minutes:.0f} minutes", flush=True)
    return found


def written(job: Job, parts: Sequence[str]) -> str:
    """Write and return the table of all parts that are finished."""
    files = {part: job.out / f"{job.which}-{part.replace(':', '-')}.json" for part in parts}
    lines = [line(part, read_json(path)) for part, path in files.items() if path.is_file()]
    if job.which == "nb201":
        lines.append(
            f"| a random row (mean) | - | 0 | {len(job.table)} | {100 * job.truth.mean():.1f} | - | - |"
        )
    text = "\n".join([HEADS[job.which], *lines]) + "\n"
    write_atomic(job.out / f"{job.which}.md", text.encode())
    return text


def main(arguments: Sequence[str]) -> int:
    """Do the parts that are asked for, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=SPACES)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    every = [*SEARCHES, *RANKED["nb201"]]
    parser.add_argument("--parts", nargs="+", choices=every, metavar="PART", help=", ".join(every))
    parser.add_argument("--calibrate", action="store_true", help="fix epochs, print CPU minutes, and stop")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after so many")
    parser.add_argument("--quick", action="store_true", help="tiny, to try the script; needs --out")
    parser.add_argument("--out", type=Path, default=REFERENCE)
    given = parser.parse_args(arguments)
    if given.quick and given.out == REFERENCE:
        parser.error(f"--quick is not for {REFERENCE}; name another folder with --out")
    runs = given.out / "runs" if given.quick else RUNS
    column = KNOWN[given.which].column
    table = Truth(column=column).table(str(given.table))
    job = Job(given.which, given, table, table.column(column), runs, given.out, QUICK if given.quick else ())
    return work(job, [*RANKED[given.which], *SEARCHES])


def work(job: Job, every: Sequence[str]) -> int:
    """Do the parts of a table."""
    asked, ranked_by = job.given.parts or every, RANKED[job.which]
    job.out.mkdir(parents=True, exist_ok=True)
    path = job.out / f"{job.which}-epochs.yaml"
    epochs = dict.fromkeys(every, 2) if job.given.quick else (read_yaml(path) if path.is_file() else {})
    needed = [part for part in every if part in asked and part not in ("params", "zero-cost")]
    if job.given.calibrate:
        for part in needed:
            if part not in epochs:
                try:
                    epochs[part] = calibrated(job, part)
                except ConfigError as error:  # a strategy that cannot search this space, or is not installed
                    print(f"{part}: refused: {error}", flush=True)
                write_atomic(path, to_yaml(epochs).encode())
        return 0
    clock = Clock(job.given.minutes)
    for part in [part for part in every if part in asked]:
        file = job.out / f"{job.which}-{part.replace(':', '-')}.json"
        if file.is_file():
            continue
        if part in needed and part not in epochs:
            print(f"{part}: left out: {path} has no epochs of it, which --calibrate fixes", flush=True)
            continue
        do = ranked_part if part in ranked_by else search_part
        try:
            print(part, flush=True)
            write_json(file, {"part": part, **do(job, part, epochs.get(part, 0), clock)})
        except OutOfTime:
            print(
                f"{part}: stopped after {job.given.minutes:g} minutes; the same command goes on", flush=True
            )
            break
        except ConfigError as error:
            print(f"{part}: refused: {error}", flush=True)
        written(job, every)
    print(written(job, every))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
