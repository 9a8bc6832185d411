"""Measure how often simulated and real searches pass the tests of the verdict (docs/explanation/search-verdict.md).

Alphas under Adam follow noise, or a planted operation on every edge; `robust_nas/search/verdict/planted.py` says how.
About six CPU minutes for 1,000 searches a row:

    python scripts/simulate_search_verdict.py 1000

With --real, small searches on 256 zeros and ones instead, a line of JSON a pair of seeds in
results/reference/search-verdict/real.jsonl: `planted`, in which sep_conv_3x3 is the only operation that carries
information (`planted_operations.py`), and `shuffled`, the same with labels that mean nothing. What is finished is kept:

    python scripts/simulate_search_verdict.py --real 5
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import robust_nas
from robust_nas.data import Dataset, random_indices
from robust_nas.files import write_atomic
from robust_nas.records import read_lines
from robust_nas.run_folder import Run
from robust_nas.search import SearchEvidence, SeedEvidence, judge, run_strategy
from robust_nas.search.verdict.chance import Chance, agreement, agreement_by_chance
from robust_nas.search.verdict.derivation import allowed, derive
from robust_nas.search.verdict.last_epochs import kept_until_the_end
from robust_nas.search.verdict.margin import mean_margin
from robust_nas.search.verdict.planted import simulate
from robust_nas.search.verdict.trajectory import Trajectory
from robust_nas.spaces import load_space
from robust_nas.statistics.proportions import wilson
from robust_nas.workflows.candidate_tasks import context_of_search
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.context import JobContext, load_context
from robust_nas.workflows.search_job import SearchJob

NAMES = ("edges", "shares", "margin", "last epochs", "edges and margin")
SLOW = 200  # searches of which the last epochs are tested, which takes ten times as long as a margin
NOISE, PLANTED, SHUFFLED = "noise", "planted", "shuffled"
REFERENCE = Path("results/reference/search-verdict/real.jsonl")
IMAGES, CLASSES = 256, 2  # zeros and ones, which so few steps tell apart
REAL = (  # of a real search
    "device=cpu",
    "threads=1",
    "search.cells=3",
    "search.channels=4",
    "search.epochs=16",
    "search.stage1_epochs=16",
    "search.warmup_epochs=4",
    "search.batch_size=58",
    "network.cells=3",
)


def settings() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield what is simulated, the space, and the options of the simulation."""
    yield NOISE, "dsara", {}
    yield NOISE, "dsara", {"epochs": 6}
    yield NOISE, "dsara", {"epochs": 50, "steps": 2}
    yield NOISE, "dsara", {"steps": 1, "epochs": 12}
    yield NOISE, "dsara", {"steps": 40, "epochs": 6}
    yield NOISE, "dsara", {"learning_rate": 3e-4}
    yield NOISE, "dsara", {"betas": (0.9, 0.999)}
    yield NOISE, "dsara", {"common": 0.5}
    yield NOISE, "dsara", {"common": 0.9}
    yield NOISE, "dsara", {"seeds": 4}
    yield NOISE, "nas-bench-201", {}
    yield PLANTED, "dsara", {"drift": 0.1}
    yield PLANTED, "dsara", {"drift": 0.2}
    yield PLANTED, "dsara", {"drift": 0.3}
    yield PLANTED, "dsara", {"drift": 0.5}
    yield PLANTED, "dsara", {"drift": 1.0}
    yield PLANTED, "nas-bench-201", {"drift": 0.5}


def passed(space_name: str, searches: int, options: dict[str, Any]) -> dict[str, float]:
    """Return the share of searches that pass each test."""
    space = load_space(space_name)
    options = {"seeds": 2, "steps": 6, "betas": (0.5, 0.999), **options}
    weights = simulate(space, searches=searches, **options)
    momentum, steps = options["betas"][0], options["steps"]
    observed = agreement(derive(weights[:, :, -1], space), space)
    draws = agreement_by_chance(space, options["seeds"])
    found: dict[str, list[bool]] = {name: [] for name in NAMES}
    for number, own in enumerate(weights):
        ways = [Trajectory(one, steps) for one in own]
        for name in ("edges", "shares"):
            value = float(getattr(observed, name)[number])
            found[name].append(Chance.of(value, getattr(draws, name)).exceeded)
        found["margin"].append(mean_margin(ways, allowed(space), momentum)[1].exceeded)
        if number < SLOW:
            found["last epochs"].append(kept_until_the_end(ways, space, momentum)[1].exceeded)
    found["edges and margin"] = list(np.logical_and(found["edges"], found["margin"]))
    return {name: float(np.mean(several)) for name, several in found.items()}


def real_pair(what: str, number: int) -> dict[str, Any]:
    """Return what the verdict on two seeds of a real search says: agreement, margin, and whether both pass."""
    layout = "{stages: [accurate, robust], reduction_cells: [reduce], reductions: [1/2], filters: [1, 2]}"
    operations = Path(__file__).with_name("planted_operations.py")
    noises = ", ".join(f"'{operations}:{name}'" for name in ("Noise", "OtherNoise", "ThirdNoise"))
    changes = f"{{nodes: 2, operations: [sep_conv_3x3, {noises}], layout: {layout}}}"
    given = [*REAL, f"space={{name: dsara, changes: {changes}}}", f"seed={2 * number}"]
    config = robust_nas.load_config("quickstart", given)
    context = load_context(config)
    train = context.dataset.train
    train = train.subset((train.labels < CLASSES).nonzero()[:, 0]).draw(IMAGES, number)
    if what == SHUFFLED:
        order = random_indices(len(train), None, number + 1)
        train = dataclasses.replace(train, labels=train.labels[order])
    dataset = dataclasses.replace(context.dataset, train=train)
    seeds = [searched(config, 2 * number + seed, dataset) for seed in range(2)]
    evidence = SearchEvidence(
        strategy=config.search, space=config.space.load(), classes=dataset.classes, seeds=seeds
    )
    named = {one.name: one for one in judge(evidence).findings}
    agreed, margin = named["agreement between seeds"], named["margin over the next operation"]
    passed = {"agreement": agreed.status == "PASS", "margin": margin.status == "PASS"}
    return {
        "what": what,
        "pair": number,
        "edges shared": round(agreed.value or 0.0, 3),
        "lead": round(margin.value or 0.0, 3),
        **passed,
        "both": all(passed.values()),
    }


def searched(config: RunConfig, seed: int, dataset: Dataset) -> SeedEvidence:
    """Return what the verdict reads of a search with a seed on the training images of a dataset; nothing is drawn."""
    own = config.model_copy(update={"seed": seed})
    space, strategy = own.space.load(), own.search
    context = JobContext(own, dataset, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder, Run(Path(folder) / "search", SearchJob.of(own)) as run:
        outcome = run_strategy(strategy, context_of_search(run, own, space, context, run.folder / "unused"))
        records = run.records()
    return SeedEvidence(
        seed=seed,
        architecture=outcome.architecture,
        records=records,
        result={**strategy.result(records), "fitness": outcome.fitness},
    )


def real(pairs: int, path: Path) -> None:
    """Search the pairs that a file lacks, add a line for each, and print all."""
    found = read_lines(path) if path.is_file() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    for what in (PLANTED, SHUFFLED):
        for number in range(1, pairs + 1):  # the settings were chosen on pair 0
            if any((one["what"], one["pair"]) == (what, number) for one in found):
                continue
            found.append(real_pair(what, number))
            text = "".join(json.dumps(one) + "\n" for one in found)
            write_atomic(path, text.encode())
            print(found[-1], flush=True)
    for what in (PLANTED, SHUFFLED):
        own = [one for one in found if one["what"] == what]
        sums = {key: sum(one[key] for one in own) for key in ("agreement", "margin", "both")}
        print(f"{what}: of {len(own)} pairs pass {sums}")


def simulated(searches: int) -> None:
    """Print a table: the share of searches that pass, and for both tests the 95 % interval."""
    print(f"| what | searches | space | other than 2 seeds, 8 epochs of 6 steps | {' | '.join(NAMES)} |")
    print("|---|---|---|---|" + "---|" * len(NAMES))
    for what, space, options in settings():
        found = passed(space, searches, options)
        shares = [f"{100 * found[name]:.1f} %" for name in NAMES]
        low, high = wilson(round(found[NAMES[-1]] * searches), searches)
        words = ", ".join(f"{key} {value}" for key, value in options.items()) or "-"
        print(
            f"| {what} | {searches} | {space} | {words} | {' | '.join(shares)} ({100 * low:.1f}-{100 * high:.1f}) |",
            flush=True,
        )


def main() -> None:
    """Simulate, or search."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("searches", nargs="?", type=int, default=100, help="simulated, a row")
    parser.add_argument("--real", type=int, metavar="PAIRS", help="pairs of real searches of each kind")
    parser.add_argument("--out", type=Path, default=REFERENCE, help="where their lines are")
    given = parser.parse_args()
    if given.real is None:
        simulated(given.searches)
    else:
        real(given.real, given.out)


if __name__ == "__main__":
    main()
