"""Learned and black-box attacks measured for the docs: Fashion-MNIST, WRN-10-1, Linf eps 0.1.

    .venv/bin/python scripts/evidence_attacks.py [--parts victims ai-gan transfer queries] [--minutes 40] [--quick]

    victims   natural, PGD-AT and LADDER-style training, seeds 0 to 2, each attacked by the cascade
    ai-gan    a generator against the natural and the PGD-AT victim of seed 0, next to targeted PGD-10
    transfer  both generators on every victim that they were not trained for
    queries   attacks by answers alone on both victims of seed 0: success and median distance against queries

Settings of training are those of `evidence_losses.py`, but the last epoch is kept. After every piece its outcome is
written to results/reference/attacks/; runs and generators are in results/attacks/. What is finished is kept: the same
command goes on where it was. --minutes begins nothing new after so many; --quick shows that all of it runs, writes to
results/attacks-quick/ and says nothing about any attack.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import robust_nas
from robust_nas.config import to_yaml
from robust_nas.run_folder import read_json, write_atomic, write_json
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.places import RESULTS

REFERENCE = Path("results/reference/attacks")
NETWORK, EPS = "wrn-10-1", 0.1
LOSSES = {"natural": "natural", "pgd-at": "pgd-at", "ladder": "ladder"}
SEEDS = (0, 1, 2)
ATTACKED = ("natural", "pgd-at")  # of seed 0, by generators and by queries
SETTINGS = (
    "data.limit=1500",
    "training.epochs=10",
    "training.ema=null",
    "training.keep=last",  # the epoch that is most robust is the first one of a training without attack
    "training.validate_from=2",
    "training.validate_every=3",
    "training.validation_images=200",
    "evaluation.suite=cascade",
    "evaluation.images=200",
)
GENERATOR: tuple[str, ...] = ()  # all defaults of `attack train`
ASKING = {  # attacks by answers alone, each with 5,000 queries an image
    "square": {},
    "hop-skip-jump": {},
    "boundary": {"norm": "l2"},
    "sign-opt": {},
    "opt": {"norm": "l2"},
    "zoo": {"norm": "l2"},
}
QUERIES, IMAGES = 5000, 50
EPS_L2 = 1.5  # of the attacks that L2 alone defines
BUDGETS = (100, 250, 500, 1000, 2500, 5000)
QUICK = (
    "data.limit=200",
    "training.epochs=2",
    "training.validate_from=0",
    "training.validate_every=1",
    "evaluation.images=10",
    "evaluation.findings=none",
)
QUICK_GENERATOR = ("method.epochs=2", "report.images=20", "report.rounds=1")
Piece = tuple[str, str, Callable[[], dict[str, Any]]]  # part, name, what makes its row


class Evidence:
    """Folders and sizes of a call."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.folder = RESULTS / ("attacks-quick" if quick else "attacks")
        self.target = self.folder / "reference" if quick else REFERENCE
        self.queries, self.images = (50, 6) if quick else (QUERIES, IMAGES)

    def config(self, method: str, seed: int) -> RunConfig:
        """Return the config of a victim."""
        more = (f"training.loss={LOSSES[method]}", f"seed={seed}", *(QUICK if self.quick else ()))
        return robust_nas.load_config("fashion", [*SETTINGS, *more])

    def model(self, method: str, seed: int) -> Path:
        """Return the folder of a victim, trained if it is not yet."""
        return robust_nas.train(
            self.config(method, seed),
            robust_nas.load_architecture(NETWORK),
            self.folder / f"{method}-seed{seed}",
            mode="resume",
        )

    def pieces(self) -> Iterator[Piece]:
        """Yield everything in its order."""
        for seed in SEEDS:
            for method in LOSSES:
                yield "victims", f"{method}-seed{seed}", partial(self.victim, method, seed)
        for method in ATTACKED:
            yield "ai-gan", f"ai-gan-{method}", partial(self.generator, method)
        for method in ATTACKED:
            for other in LOSSES:
                for seed in SEEDS:
                    if (other, seed) != (method, 0):
                        name = f"transfer-{method}-to-{other}-seed{seed}"
                        yield "transfer", name, partial(self.transfer, method, other, seed)
        for method in ATTACKED:
            for attack, options in ASKING.items():
                name = f"queries-{method}-{attack}"
                yield "queries", name, partial(self.asked, method, attack, options)

    def victim(self, method: str, seed: int) -> dict[str, Any]:
        """Train a network and attack it by the cascade."""
        config, model = self.config(method, seed), self.model(method, seed)
        tree = robust_nas.run_evaluation(config, model, mode="resume")
        return {
            "training": method,
            "seed": seed,
            "images": tree["robust"]["images"],
            "clean": tree["clean"]["accuracy"],
            "robust": tree["robust"]["accuracy"],
            "robust_low": tree["robust"]["interval"][0],
            "robust_high": tree["robust"]["interval"][1],
            "verdict": tree["verdict"]["status"],
            "train_seconds": read_json(model / "result.json")["seconds"],
        }

    def generator(self, method: str) -> dict[str, Any]:
        """Train a generator against a victim and measure it next to targeted PGD-10."""
        victim = self.model(method, 0)
        settings = QUICK_GENERATOR if self.quick else GENERATOR
        config = robust_nas.attack_config(victim, "ai-gan", settings)
        write_atomic(self.target / f"config-ai-gan-{method}.yaml", to_yaml(config).encode())
        tree = robust_nas.train_attack(config, victim, self.folder / f"ai-gan-{method}", mode="resume")
        return {
            "victim": method,
            "images": tree["images"],
            "clean": tree["clean"],
            "epoch": tree["epoch"],
            "ai_gan_success": tree["all"]["attack_success"],
            "pgd_success": tree["all"]["pgd_success"],
            "ai_gan_fooled": tree["fooled"]["attack"],
            "pgd_fooled": tree["fooled"]["pgd"],
            "ai_gan_ms": tree["ms_per_image"]["attack"],
            "pgd_ms": tree["ms_per_image"]["pgd"],
            "times_faster": tree["times_faster"],
            "macs_ratio": tree["macs_ratio"],
            "seconds": tree["seconds"],
        }

    def transfer(self, method: str, other: str, seed: int) -> dict[str, Any]:
        """Try the images of a generator, made for its own victim, on another network, next to PGD-10's."""
        folder = str((self.folder / f"ai-gan-{method}").resolve())
        inner = {
            "ai-gan": {"name": "ai-gan", "generator": folder},
            "pgd-10": {"name": "pgd", "steps": 10},
        }
        row = {"made_on": f"{method}-seed0", "tried_on": f"{other}-seed{seed}"}
        for label, attack in inner.items():
            options = {"surrogates": [str(self.model(method, 0).resolve())], "attack": attack}
            out = self.folder / f"transfer-{method}-{label}-{other}-seed{seed}"
            images = 10 if self.quick else 200
            path = out / "attack.json"
            if path.is_file():
                tree = read_json(path)
            else:
                model = self.model(other, seed)
                tree = robust_nas.run_attack("transfer", model, out, options=options, images=images)
            row |= {"images": tree["images"], "clean": tree["clean"]["share"], label: tree["robust"]["share"]}
        return row

    def asked(self, method: str, attack: str, options: dict[str, Any]) -> dict[str, Any]:
        """Attack a victim's first test images, those of an evaluation, by answers alone; keep the curve."""
        import torch

        from robust_nas.attacks import ATTACKS
        from robust_nas.data import random_indices
        from robust_nas.evaluation import query_curve
        from robust_nas.evaluation.query_curves import within
        from robust_nas.nets import read_model
        from robust_nas.workflows.context import load_context

        config = self.config(method, 0)
        norm = options.get("norm", "linf")
        eps = EPS if norm == "linf" else EPS_L2
        budget = {} if attack == "square" else {"eps": None}
        made = ATTACKS.make(attack, **{"eps": eps, **options, **budget, "queries": self.queries})
        context = load_context(config)
        test = context.dataset.test
        chosen = test.subset(random_indices(len(test), self.images, 0))
        network = read_model(self.model(method, 0)).network.eval()
        began = time.process_time()
        found = made.run(network, chosen.float(), chosen.labels, torch.Generator().manual_seed(0), trace=True)
        asked, trace = found.queries, found.query_trace
        if asked is None or trace is None:
            raise RuntimeError(f"{made.label} does not count its queries")
        points = query_curve(asked, trace, eps)
        curve = {"norm": norm, "eps": eps, "points": points}
        write_json(self.target / f"queries-{method}-{attack}.json", curve)
        near = within(trace.distance, eps)
        at = {
            f"success_{budget}": len(set(trace.image[near & (trace.queries <= budget)].tolist()))
            / len(chosen)
            for budget in BUDGETS
            if budget <= self.queries
        }
        return {
            "victim": method,
            "attack": attack,
            "norm": norm,
            "eps": eps,
            "images": len(chosen),
            **at,
            "median_distance": points[-1]["distance"],
            "mean_queries": float(asked.float().mean()),
            "most_queries": int(asked.max()),
            "seconds": round(time.process_time() - began, 1),
        }


def write(rows: dict[str, dict[str, dict[str, Any]]], target: Path) -> None:
    """Write one CSV a part."""
    for part, found in rows.items():
        text = io.StringIO()
        keys = list(dict.fromkeys(key for row in found.values() for key in row))
        writer = csv.DictWriter(text, ["piece", *keys], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"piece": name, **row} for name, row in found.items())
        write_atomic(target / f"{part}.csv", text.getvalue().encode())


def main() -> None:
    """Run what is not finished yet, and write its row after every piece."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ("victims", "ai-gan", "transfer", "queries")
    parser.add_argument("--parts", nargs="+", choices=known, default=list(known))
    parser.add_argument("--minutes", type=float, help="begin nothing new after so many")
    parser.add_argument("--quick", action="store_true", help="tiny networks and budgets, elsewhere")
    given = parser.parse_args()
    evidence, began = Evidence(given.quick), time.monotonic()
    evidence.target.mkdir(parents=True, exist_ok=True)
    path = evidence.target / "rows.json"
    rows: dict[str, dict[str, dict[str, Any]]] = read_json(path) if path.is_file() else {}
    for part, name, make in evidence.pieces():
        if part not in given.parts or name in rows.get(part, {}):
            continue
        if given.minutes is not None and time.monotonic() - began > 60 * given.minutes:
            print("time is over: the same command goes on", file=sys.stderr)
            break
        rows.setdefault(part, {})[name] = make()
        print(name, *rows[part][name].values(), file=sys.stderr, flush=True)
        write_json(path, rows)
        write(rows, evidence.target)


if __name__ == "__main__":
    main()
