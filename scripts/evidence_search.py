"""Is a sampled search worth its time? On digits: evolution against random search, and an objective after compression.

    .venv/bin/python scripts/evidence_search.py                # every run that is left
    .venv/bin/python scripts/evidence_search.py --parts 2      # the next two of them
    .venv/bin/python scripts/evidence_search.py --quick --out results/search-quick    # minutes, not for the docs

strategy      evolution against random search: the same evaluator, window of MACs and number of evaluations, and so the
              same total budget; the result of each is trained by the recipe and attacked by the cascade; 5 seeds
compression   evolution on robust accuracy after compression to half the MACs, against evolution on robust accuracy; the
              result of each is trained, compressed to half the MACs and attacked by the cascade; 3 seeds

Differences are paired by image, with an interval over seeds and images. The space of `compression` is that of
NAS-Bench-201: GDWS finds nothing in DSARA's cells. A result that cannot be compressed so far counts as such.

Runs are in results/search/, outcomes in results/reference/search/: a JSON file a run, `table.md`. What is finished is
kept: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import robust_nas
from robust_nas.errors import CompressionError
from robust_nas.records import read_environment, read_json
from robust_nas.run_folder import write_atomic, write_json
from robust_nas.statistics import Measurements, contrast
from robust_nas.studies.run.trial import pack, unpack
from robust_nas.workflows.config import CompressionConfig, RunConfig
from robust_nas.workflows.controls import answers_of

RUNS, REFERENCE = Path("results/search"), Path("results/reference/search")
COMMON = (  # of the recipe `quickstart`: Linf eps 0.1
    "device=cpu",
    "threads=1",
    "network.cells=4",
    "network.channels=16",
    "evaluation.suite=cascade",
    "evaluation.images=360",
    "evaluation.findings=none",
)
SEARCH = {  # about 5 CPU minutes: the sixteen runs share 2 hours
    "name": "evolution",
    "cells": 4,
    "channels": 8,
    "evaluations": 40,
    "population": 10,
    "evaluator": {"name": "short-training", "epochs": 4},
}
WINDOW = "1.0M:1.1M"  # MACs of the final network in `strategy`
NB201 = ("space={name: nas-bench-201}", "network.cells=5", "network.channels=8")
HALF = "compression={gdws: {budgets: [0.5]}}"
SMALL = {"cells": 5, "channels": 4}  # of `compression` during the search
# By part: the two arms with what each changes of the search, the overrides, the number of seeds.
PARTS: dict[str, tuple[dict[str, dict[str, Any]], tuple[str, ...], int]] = {
    "strategy": ({"evolution": {"macs": WINDOW}, "random": {"macs": WINDOW, "name": "random"}}, (), 5),
    "compression": (
        {
            "after": {**SMALL, "objectives": {"compressed_robust": "max"}},
            "before": {**SMALL, "objectives": {"robust": "max"}},
        },
        (*NB201, HALF),
        3,
    ),
}
QUICK = (
    "data.limit=100",
    "training.epochs=2",
    "training.validate_from=0",
    "training.validate_every=1",
    "training.schedule.warmup_epochs=0",
    "evaluation.images=8",
)
QUICK_SEARCH = {"evaluations": 2, "population": 2, "evaluator": {"name": "short-training", "epochs": 1}}


def config_of(part: str, arm: str, seed: int, quick: bool) -> RunConfig:
    """Return the config of a run."""
    arms, overrides, _ = PARTS[part]
    search = {**SEARCH, **arms[arm], **(QUICK_SEARCH if quick else {})}
    if quick:  # whatever is found
        search.pop("macs", None)
    if search["name"] == "random":
        del search["population"]
    given = (*COMMON, *overrides, *(QUICK if quick else ()), f"search={json.dumps(search)}")
    return robust_nas.load_config("quickstart", [*given, f"seed={seed}", f"name={part}-{arm}"])


def outcome(part: str, config: RunConfig, folder: Path) -> dict[str, Any]:
    """Search, train, compress where the part does, and attack; return the record of a run."""
    found = robust_nas.run_search(config, folder / "search", mode="resume")
    record: dict[str, Any] = {
        "seed": config.seed,
        "macs": found.record["macs"],
        "params": found.record["params"],
        "candidates": found.record["candidates"],
        "search_seconds": found.record["seconds"],
        "search_score": found.record["score"],
        "right": None,
    }
    model = robust_nas.train(config, found.architecture, folder / "model", mode="resume")
    if part == "compression":
        try:
            robust_nas.compress(CompressionConfig.of(config), model, folder / "compressed", mode="resume")
        except CompressionError as error:
            return {**record, "refused": str(error)}
        place = folder / "compressed" / "model" / "evaluation"
        tree = read_json(place / "evaluation.json")
    else:
        place = folder / "evaluation"
        tree = robust_nas.run_evaluation(config, model, place, mode="resume")
    right = answers_of(tree, read_environment(place)["images"]["test"], config.seed)["robust"]
    return {
        **record,
        "train_seconds": read_json(model / "result.json")["seconds"],
        "clean": tree["clean"]["accuracy"],
        "robust": tree["robust"]["accuracy"],
        "verdict": tree["verdict"]["status"],
        "images": len(right),
        "right": pack(right),
    }


def table(outcomes: Mapping[tuple[str, str], list[dict[str, Any]]]) -> str:
    """Return a line an arm, and the difference of the two arms of a part over the seeds that both have."""
    lines = [
        "| part | arm | seeds | MACs, M | clean % | robust % | search s |",
        "|---|---|---|---|---|---|---|",
    ]
    differences = []
    for part, (arms, _, _) in PARTS.items():
        own = {
            arm: {one["seed"]: one for one in outcomes.get((part, arm), []) if one["right"]} for arm in arms
        }
        for arm, by_seed in own.items():
            rows = list(by_seed.values())
            refused = len(outcomes.get((part, arm), [])) - len(rows)
            means = [f"{_mean(rows, key) * scale:.2f}" if rows else "" for key, scale in _COLUMNS]
            note = f" ({refused} not compressible)" if refused else ""
            lines.append(f"| {part} | {arm} | {len(rows)}{note} | {' | '.join(means)} |")
        first, second = own
        seeds = tuple(sorted(own[first].keys() & own[second].keys()))
        if len(seeds) > 1:
            differences.append(_difference(part, {arm: own[arm] for arm in (first, second)}, seeds))
    return "\n".join([*lines, "", *differences]) + "\n"


_COLUMNS = (("macs", 1e-6), ("clean", 100), ("robust", 100), ("search_seconds", 1))


def _mean(rows: list[dict[str, Any]], key: str) -> float:
    return float(np.mean([row[key] for row in rows]))


def _difference(part: str, own: Mapping[str, Mapping[int, dict[str, Any]]], seeds: tuple[int, ...]) -> str:
    points = [
        Measurements(
            name=arm,
            seeds=seeds,
            outcomes={
                "robust": np.array(
                    [unpack(one["right"], one["images"]) for one in map(rows.get, seeds) if one]
                )
            },
        )
        for arm, rows in own.items()
    ]
    found = contrast(points[0], points[1], "robust")
    first, second = own
    interval = "no interval"
    if found.interval is not None:
        low, high = found.interval
        interval = f"95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
    return (
        f"{part}: {first} - {second}: {100 * found.effect:+.1f} points of robust accuracy, {interval}, "
        f"{len(seeds)} seeds, {found.images} images each."
    )


def main() -> None:
    """Run what is not finished yet, and write the table after every outcome."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=int, help="at most so many runs in this call")
    parser.add_argument("--only", choices=list(PARTS), help="one of the two comparisons")
    parser.add_argument(
        "--quick", action="store_true", help="tiny, two seeds, to try the script; needs --out"
    )
    parser.add_argument("--out", type=Path, default=REFERENCE)
    given = parser.parse_args()
    if given.quick and given.out == REFERENCE:
        parser.error(f"--quick is not for {REFERENCE}; name another folder with --out")
    runs = given.out / "runs" if given.quick else RUNS
    given.out.mkdir(parents=True, exist_ok=True)
    left = given.parts
    outcomes: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for part, (arms, _, seeds) in PARTS.items():
        for seed in range(2 if given.quick else seeds):
            for arm in arms:  # in turn: a slow hour meets both
                path = given.out / f"{part}-{arm}-{seed}.json"
                if not path.is_file():
                    if left == 0 or given.only not in (None, part):
                        continue
                    left = None if left is None else left - 1
                    config = config_of(part, arm, seed, given.quick)
                    write_json(path, outcome(part, config, runs / path.stem))
                outcomes.setdefault((part, arm), []).append(read_json(path))
                write_atomic(given.out / "table.md", table(outcomes).encode())
    print(table(outcomes))


if __name__ == "__main__":
    main()
