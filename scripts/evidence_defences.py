"""Defences measured for the docs: what is left of each under an attack that knows it; digits and Fashion-MNIST.

    .venv/bin/python scripts/evidence_defences.py [--parts digits fashion-mnist] [--minutes 40] [--quick]

WRN-10-1, Linf eps 0.1, seeds 0 to 2. For every seed a natural network and one by PGD-AT (the control) are trained, and
one with the noise of each defence that is trained with it. Every defence is put around its network by
`robust-nas defend` and evaluated: APGD on the network without the defence, judged on the defended model (unaware),
and on the defended model (adaptive; with 8 passes a gradient for a random one, by `joint` for a detector). Certificates
are in L2. The cost is the CPU time of an answer to 64 images as a ratio to the network's without the defence, in one
process, in turn, one thread.

Settings are fixed below. After every evaluation its row is written to results/reference/defences/; runs and models
are in results/defences/. What is finished is kept: the same command goes on where it was. --minutes begins nothing new
after so many; --quick shows that all of it runs, writes to results/defences-quick/ and says nothing about any defence.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import robust_nas
from robust_nas.attacks import Predictor
from robust_nas.nets import read_model
from robust_nas.run_folder import read_json, write_atomic, write_json
from robust_nas.timing import interleaved
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.places import RESULTS

REFERENCE = Path("results/reference/defences")
NETWORK, EPS, RADIUS = "wrn-10-1", 0.1, 0.25
SEEDS = (0, 1, 2)
RECIPES = {"digits": "quickstart", "fashion-mnist": "fashion"}
SETTINGS = (
    "training.ema=null",
    "training.validate_from=2",
    "training.validate_every=3",
    "training.validation_images=200",
    f"evaluation.threat_model={{norm: linf, eps: {EPS}}}",
    "evaluation.suite=null",
    "evaluation.attacks=[{attack: {name: apgd, steps: 50, loss: margin}}]",
    "evaluation.images=128",
    "evaluation.deployed.eot=8",
    "evaluation.deployed.draws=3",
)
OF = {"digits": ("training.epochs=12",), "fashion-mnist": ("data.limit=1500", "training.epochs=10")}
TRAININGS: dict[str, tuple[str, ...]] = {
    "natural": ("training.loss=natural",),
    "pgd-at": ("training.loss=pgd-at",),
    "gaussian-noise": ("training.loss=natural", "training.hooks=[{name: gaussian-noise, sigma: 0.25}]"),
    "noise-layers": ("training.loss=natural", "training.hooks=[{name: noise-layers}]"),
}


class Defended(NamedTuple):
    """A row of the table: a training, a defence around its network, and the defence's options."""

    training: str
    defence: str | None = None
    options: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Return a name for tables and folders."""
        return self.training if self.defence is None else f"{self.defence} on {self.training}"


DEFENDED = (
    Defended("natural"),
    Defended("pgd-at"),
    Defended("natural", "blur"),
    Defended("natural", "jpeg"),
    Defended("natural", "crop-resize", ("samples=10",)),
    Defended("natural", "squeezer"),
    Defended("natural", "feature-squeezing"),
    Defended("pgd-at", "feature-squeezing"),
    Defended("gaussian-noise", "randomized-smoothing", ("n=2000",)),
    Defended("noise-layers", "rse"),
)
# The epoch of the best robust accuracy, which is kept of every training, is of a natural one the epoch in which it had
# learnt least: on Fashion-MNIST a first try kept a network of 17 % clean accuracy. There the last epoch is kept.
LAST_EPOCH = {"fashion-mnist": "training.validate_from=9"}
QUICK = ("data.limit=200", "training.epochs=2", "evaluation.images=16", "training.validate_from=0")
COLUMNS = ("clean", "unaware", "adaptive", "worst case", f"certified, L2 {RADIUS:g}", "cost")


class Evidence:
    """Folders and sizes of a call."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.folder = RESULTS / ("defences-quick" if quick else "defences")
        self.target = self.folder / "reference" if quick else REFERENCE

    def config(self, data: str, training: str, seed: int) -> RunConfig:
        """Return the config of a training and its evaluation."""
        more = [*OF[data], *TRAININGS[training], f"seed={seed}"]
        if data in LAST_EPOCH and training != "pgd-at":
            more.append(LAST_EPOCH[data])
        more += QUICK if self.quick else ()
        return robust_nas.load_config(RECIPES[data], [*SETTINGS, *more])

    def pieces(self, parts: Sequence[str]) -> Iterator[tuple[str, Defended, int]]:
        """Yield everything in its order, seed after seed."""
        for data in parts:
            for seed in SEEDS:
                for row in DEFENDED:
                    yield data, row, seed

    def place(self, data: str, row: Defended, seed: int) -> Path:
        """Return where the outcome of a row is."""
        return self.target / f"{data}-seed{seed}-{row.label.replace(' ', '-')}.json"

    def made(self, data: str, row: Defended, seed: int) -> dict[str, Any]:
        """Train, defend and evaluate; return the outcome."""
        config = self.config(data, row.training, seed)
        trained = self.folder / f"{data}-{row.training}-seed{seed}"
        architecture = robust_nas.load_architecture(NETWORK)
        model = bare = robust_nas.train(config, architecture, trained, mode="resume")
        if row.defence is not None:
            defence = robust_nas.defence_config(bare, row.defence, row.options)
            folder = self.folder / f"{data}-seed{seed}-{row.label.replace(' ', '-')}"
            robust_nas.defend(defence, bare, folder, mode="resume")
            model = folder / "model"
        tree = robust_nas.run_evaluation(config, model, mode="resume")
        found: dict[str, Any] = {
            "data": data,
            "seed": seed,
            "row": row.label,
            "images": tree["robust"]["images"],
            "clean": tree["clean"]["accuracy"],
            "worst case": tree["robust"]["accuracy"],
            "verdict": tree["verdict"]["status"],
            "cost": 1.0 if row.defence is None else cost(model, bare),
        }
        section = tree.get("defence")
        for kind in ("unaware", "adaptive"):
            rows = [] if section is None else [each for each in section["rows"] if each["kind"] == kind]
            found[kind] = rows[0]["robust"]["accuracy"] if rows else tree["robust"]["accuracy"]
        if section is not None and section["certified"]:
            points = section["certified"]["points"]
            found["certified"] = max((p["accuracy"] for p in points if p["radius"] >= RADIUS), default=0.0)
        if section is not None and section["false_alarms"]:
            found["false alarms"] = section["false_alarms"]["rate"]
        return found


def cost(model: Path, bare: Path) -> float:
    """Return the CPU time of an answer as a ratio to that of the network without its defence."""
    torch.set_num_threads(1)
    defended, plain = (Predictor.of(read_model(folder).network) for folder in (model, bare))
    images = torch.rand(64, *read_model(bare).description.input_shape)
    with torch.no_grad():
        found = interleaved({"defended": lambda: defended(images), "plain": lambda: plain(images)}, rounds=9)
    return found["defended"].ratio(found["plain"])


def table(outcomes: Sequence[dict[str, Any]], data: str) -> str:
    """Return a Markdown table of one dataset: means and, over the seeds, smallest and largest."""
    lines = [f"| {' | '.join(('defence', *COLUMNS, 'false alarms', 'verdicts'))} |", "|---" * 9 + "|"]
    for row in DEFENDED:
        mine = [each for each in outcomes if each["data"] == data and each["row"] == row.label]
        if not mine:
            continue
        cells = [spread(mine, key) for key in ("clean", "unaware", "adaptive", "worst case", "certified")]
        if row.defence is None:
            cells[1] = cells[2] = ""
        times = f"{statistics.median(each['cost'] for each in mine):.1f}"
        words = [each["verdict"] for each in mine]
        verdicts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
        lines.append(f"| {' | '.join((row.label, *cells, times, spread(mine, 'false alarms'), verdicts))} |")
    return "\n".join(lines) + "\n"


def spread(outcomes: Sequence[dict[str, Any]], key: str) -> str:
    """Return a share in %, its mean and range over seeds; empty where it is not defined."""
    shares = [100 * each[key] for each in outcomes if key in each]
    if not shares:
        return ""
    mean = f"{statistics.mean(shares):.1f}"
    return mean if len(shares) == 1 else f"{mean} ({min(shares):.0f}-{max(shares):.0f})"


def main() -> None:
    """Make what is missing, and write the tables again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    evidence, began = Evidence(options.quick), time.monotonic()
    for data, row, seed in evidence.pieces(options.parts):
        place = evidence.place(data, row, seed)
        if place.exists():
            continue
        if time.monotonic() - began > 60 * options.minutes:
            print(f"ended after {options.minutes:g} minutes; the same command goes on", file=sys.stderr)
            break
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, evidence.made(data, row, seed))
        print(f"{data}, seed {seed}: {row.label}", flush=True)
    outcomes = [read_json(path) for path in sorted(evidence.target.glob("*-seed*.json"))]
    for data in RECIPES:
        if any(each["data"] == data for each in outcomes):
            text = table(outcomes, data)
            write_atomic(evidence.target / f"{data}.md", text.encode())
            print(f"\n{data}\n\n{text}")


if __name__ == "__main__":
    main()
