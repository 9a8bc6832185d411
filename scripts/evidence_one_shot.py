"""One-shot searches at equal CPU time: DSARA with one option changed at a time, and every strategy at its defaults.

    .venv/bin/python scripts/evidence_one_shot.py --calibrate              # first: the epochs of every arm
    .venv/bin/python scripts/evidence_one_shot.py                          # every run that is left
    .venv/bin/python scripts/evidence_one_shot.py --arms dsara gdas --parts 3     # the next three of two arms
    .venv/bin/python scripts/evidence_one_shot.py --quick --out results/one-shot-quick    # minutes, not for the docs

A run is an arm and a seed: a search on digits by the recipe `quickstart`, with as many epochs as take SECONDS of CPU;
its result and one random network of equal MACs, trained by one recipe with one seed and attacked by the cascade. An arm
has three seeds. Its difference is that of the results to the random networks, paired by image, with an interval over
seeds and images; its verdict is that of `robust-nas search` for these seeds and this difference.

--calibrate takes the CPU seconds of two short searches of each arm, whose difference is that of their epochs, and
writes `epochs.yaml`. They are fixed before the first run. A derivation by perturbation is not among these seconds.

Runs are in results/one-shot/, outcomes in results/reference/one-shot/: a JSON file a run, `table.md`. What is finished
is kept: the same command goes on.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import robust_nas
from robust_nas.config import read_yaml, to_yaml
from robust_nas.records import read_environment, read_json
from robust_nas.run_folder import write_atomic, write_json
from robust_nas.search import SearchEvidence, judge
from robust_nas.statistics import Measurements, contrast
from robust_nas.studies.run.trial import pack, unpack
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.controls import WORDS, answers_of
from robust_nas.workflows.search_verdict import seed_evidence

RUNS, REFERENCE = Path("results/one-shot"), Path("results/reference/one-shot")
SECONDS = 60.0  # of CPU, of a search
SEEDS = 3
COMMON = (
    "device=cpu",
    "threads=1",
    "evaluation.suite=cascade",
    "evaluation.images=360",
    "evaluation.findings=none",
    "search.controls=1",
)
# By arm: the strategy, and what differs from the recipe's search. ALL, HALF and THIRD are parts of the arm's epochs.
ARMS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "dsara": (None, ("search.stage1_epochs=HALF",)),
    "dsara, one objective": (None, ("search.stage1_epochs=ALL",)),
    "dsara, two objectives": (None, ("search.stage1_epochs=0",)),
    "dsara, sum": (None, ("search.stage1_epochs=HALF", "search.combine=sum")),
    "dsara, unit gradients": (None, ("search.stage1_epochs=HALF", "search.normalise=unit")),
    "dsara, gradients by loss": (None, ("search.stage1_epochs=HALF", "search.normalise=loss")),
    "dsara, second order": (None, ("search.stage1_epochs=HALF", "search.order=2")),
    "dsara, warm-up": (None, ("search.stage1_epochs=HALF", "search.warmup_epochs=THIRD")),
    "dsara, cosine alphas": (None, ("search.stage1_epochs=HALF", "search.alphas.schedule=cosine")),
    "dsara, alphas 0.1": (None, ("search.stage1_epochs=HALF", "search.alphas.learning_rate=0.1")),
    "dsara, any skips": (None, ("search.stage1_epochs=HALF", "search.max_skips=null")),
    "dsara, perturbation": (None, ("search.stage1_epochs=HALF", "search.derive_by=perturbation")),
    "dsara, PGD-7": (None, ("search.stage1_epochs=HALF", "search.attack={name: pgd, steps: 7}")),
    "darts": ("darts", ()),
    "darts, second order": ("darts", ("search.order=2",)),
    "pc-darts": ("pc-darts", ()),
    "gdas": ("gdas", ()),
    "advrush": ("advrush", ("search.stage1_epochs=HALF",)),
    "nni:darts": ("nni:darts", ()),
    "nni:gumbel-darts": ("nni:gumbel-darts", ()),
    "nni:proxyless": ("nni:proxyless", ()),
}
QUICK = (
    "data.limit=200",
    "training.epochs=2",
    "training.validate_from=0",
    "training.validate_every=1",
    "training.schedule.warmup_epochs=0",
    "evaluation.images=8",
)


def config_of(arm: str, seed: int, epochs: int, extra: Sequence[str] = ()) -> RunConfig:
    """Return the config of a run."""
    strategy, changes = ARMS[arm]
    given = [*COMMON, f"search.epochs={epochs}"]
    for change in changes:
        for word, number in (("ALL", epochs), ("HALF", epochs // 2), ("THIRD", epochs // 3)):
            change = change.replace(word, str(number))
        given.append(change)
    name = "".join(letter if letter.isalnum() else "-" for letter in arm)
    return robust_nas.load_config(
        "quickstart", [*given, *extra, f"seed={seed}", f"name={name}"], strategy=strategy
    )


def calibrated(arm: str, folder: Path, extra: Sequence[str]) -> int:
    """Return the epochs of an arm that take SECONDS of CPU."""
    seconds = []
    for epochs in (2, 4):
        shutil.rmtree(folder, ignore_errors=True)
        began = time.process_time()
        config = config_of(arm, 0, epochs, [*extra, "search.controls=0"])
        robust_nas.run_search(config, folder, seeds=1)
        seconds.append(time.process_time() - began)
    shutil.rmtree(folder, ignore_errors=True)
    return max(4, round(SECONDS / max((seconds[1] - seconds[0]) / 2, 1e-3)))


def outcome(arm: str, config: RunConfig, folder: Path) -> dict[str, Any]:
    """Search, train the result and its control, attack both; return the record of a run."""
    began = time.process_time()
    found = robust_nas.run_search(
        config.model_copy(update={"search": config.search.alone}), folder, seeds=1, mode="resume"
    )
    seconds = time.process_time() - began
    found = robust_nas.run_search(config, folder, seeds=1, mode="resume")
    right: dict[str, str] = {}
    networks = {one["label"]: one for one in (found.controls or {})["networks"]}
    count = 0
    for label in networks:
        place = folder / "controls" / label / "evaluation"
        tree = read_json(place / "evaluation.json")
        answers = answers_of(tree, read_environment(place)["images"]["test"], config.seed)["robust"]
        right[label], count = pack(answers), len(answers)
    return {
        "arm": arm,
        "seed": config.seed,
        "epochs": config.search.epochs,  # type: ignore[attr-defined] # of a one-shot strategy
        "cpu_seconds": round(seconds, 1),
        "macs": found.record["macs"],
        "params": found.record["params"],
        "skips": found.record["skips"],
        "fitness": found.record.get("fitness"),
        "clean": networks["result"]["clean"],
        "robust": networks["result"]["robust"],
        "random_robust": networks["random-0"]["robust"],
        "images": count,
        "right": right,
    }


def difference(outcomes: Sequence[Mapping[str, Any]]) -> Any:
    """Return the contrast of results and random networks over the seeds of an arm."""
    points = [
        Measurements(
            name=label,
            seeds=tuple(one["seed"] for one in outcomes),
            outcomes={"robust": np.array([unpack(one["right"][label], one["images"]) for one in outcomes])},
        )
        for label in ("result", "random-0")
    ]
    return contrast(points[0], points[1], "robust")


def verdict(
    arm: str, configs: Sequence[RunConfig], folders: Sequence[Path], outcomes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the verdict on the seeds of an arm with their common difference."""
    seeds = [seed_evidence(folder, config.seed) for config, folder in zip(configs, folders, strict=True)]
    robust = difference(outcomes).to_dict()
    controls = read_json(folders[0] / "controls" / "controls.json")
    above = robust["interval"] is not None and robust["interval"][0] > 0
    common = {**controls, "difference": {**controls["difference"], "robust": robust}, "words": WORDS[above]}
    evidence = SearchEvidence(
        strategy=configs[0].search,
        space=configs[0].space.load(),
        classes=seeds[0].result["classes"],
        seeds=seeds,
        controls=common,
    )
    return judge(evidence).to_dict()


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a line an arm."""
    lines = [
        "| search | epochs | CPU s | edges shared, % | supernet robust, % | derived, % | MACs, M | clean, % "
        "| robust, % | - random, points | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        fit = [one for one in row["fitness"] if one]
        supernet = _percent([one["supernet"]["robust"] for one in fit])
        derived = _percent([one["derived"]["robust"] for one in fit if one["derived"]])
        effect = f"{100 * row['effect']:+.1f}"
        if row["interval"] is not None:
            effect += " ({:+.1f} to {:+.1f})".format(*(100 * bound for bound in row["interval"]))
        lines.append(
            f"| {row['arm']} | {row['epochs']} | {np.mean(row['cpu_seconds']):.0f} | {row['shared']} | {supernet} "
            f"| {derived} | {np.mean(row['macs']) / 1e6:.2f} | {_percent(row['clean'])} | {_percent(row['robust'])} "
            f"| {effect} | {row['verdict']} |"
        )
    return "\n".join(lines) + "\n"


def _percent(values: Sequence[float]) -> str:
    return f"{100 * float(np.mean(values)):.1f}" if values else ""


def row_of(arm: str, outcomes: Sequence[Mapping[str, Any]], judged: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of an arm."""
    found = difference(outcomes)
    shared = next((one for one in judged["findings"] if one["name"].startswith("agreement between")), None)
    columns = ("cpu_seconds", "macs", "clean", "robust", "fitness")
    return {
        "arm": arm,
        "epochs": outcomes[0]["epochs"],
        **{key: [one[key] for one in outcomes] for key in columns},
        "shared": "" if shared is None or shared["value"] is None else f"{100 * shared['value']:.0f}",
        "effect": found.effect,
        "interval": found.interval,
        "verdict": judged["status"],
        "reasons": judged["reasons"],
        "findings": judged["findings"],
    }


def main() -> None:
    """Run what is not finished yet, and write the table after every arm."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calibrate", action="store_true", help="write the epochs of every arm, and stop")
    parser.add_argument("--parts", type=int, help="at most so many runs in this call")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), metavar="ARM")
    parser.add_argument("--quick", action="store_true", help="tiny, to try the script; needs --out")
    parser.add_argument("--out", type=Path, default=REFERENCE)
    given = parser.parse_args()
    if given.quick and given.out == REFERENCE:
        parser.error(f"--quick is not for {REFERENCE}; name another folder with --out")
    runs = given.out / "runs" if given.quick else RUNS
    given.out.mkdir(parents=True, exist_ok=True)
    extra = QUICK if given.quick else ()
    path = given.out / "epochs.yaml"
    epochs = dict.fromkeys(ARMS, 4) if given.quick else (read_yaml(path) if path.is_file() else {})
    if given.calibrate:
        for arm in given.arms:
            if arm not in epochs:
                epochs[arm] = calibrated(arm, runs / "calibration", extra)
                print(f"{arm}: {epochs[arm]} epochs", flush=True)
                write_atomic(path, to_yaml(epochs).encode())
        return
    if missing := [arm for arm in given.arms if arm not in epochs]:
        parser.error(f"{path}: has no epochs of {', '.join(missing)}; run with --calibrate first")
    left, rows = given.parts, []
    for arm in ARMS:
        configs = [config_of(arm, seed, epochs[arm], extra) for seed in range(SEEDS)] if arm in epochs else []
        folders, outcomes = [], []
        for config in configs:
            file = given.out / f"{config.name}-{config.seed}.json"
            folders.append(runs / file.stem)
            if not file.is_file():
                if left == 0 or arm not in given.arms:
                    break
                left = None if left is None else left - 1
                write_json(file, outcome(arm, config, folders[-1]))
            outcomes.append(read_json(file))
        judged = given.out / f"{configs[0].name}-verdict.json" if configs else given.out
        if len(outcomes) == SEEDS:
            if not judged.is_file():
                write_json(judged, verdict(arm, configs, folders, outcomes))
            rows.append(row_of(arm, outcomes, read_json(judged)))
            write_atomic(given.out / "table.md", table(rows).encode())
    write_json(given.out / "rows.json", {"rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
