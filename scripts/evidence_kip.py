"""Learned sets measured for the docs: adversarial KIP, KIP and real images of equal number, under several attacks.

    .venv/bin/python scripts/evidence_kip.py [--parts digits fashion-mnist] [--minutes 40] [--quick]

100 images, Linf eps 0.1, relu-ntk of depth 1, seeds 0 to 2. The real images are those that both distillations start
from. Each set is deployed as kernel regression and by a natural training of WRN-10-1 on it. PGD, APGD, transferred
images (of a natural WRN-10-1 on all images) and Square each attack all images of an evaluation of their own, next to
the cascade, whose accuracy is the worst case per image. The gap is the highest of these accuracies minus the lowest.

Settings are fixed below. After every model its row is written to results/reference/kip/; runs and models are in
results/kip/. What is finished is kept: the same command goes on where it was. --minutes begins nothing new after so
many; --quick shows that all of it runs, writes to results/kip-quick/ and says nothing about any method.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import robust_nas
from robust_nas.run_folder import read_json, write_atomic, write_json
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.distill_config import DistillConfig
from robust_nas.workflows.places import RESULTS

REFERENCE = Path("results/reference/kip")
NETWORK, EPS = "wrn-10-1", 0.1
SEEDS = (0, 1, 2)
RECIPES = {"digits": "quickstart", "fashion-mnist": "fashion"}
LEARNED = ("data.normalise=dataset", "data.augment.crop=0", "data.augment.flip=false")
SETS: dict[str, tuple[str, tuple[str, ...]]] = {  # a name, the method, and its options
    "real images": ("kip", ("method.steps=0",)),
    "kip": ("kip", ()),
    "adv-kip": ("adv-kip", ()),
}
DEPLOYED = ("kernel regression", "network")
EVALUATED = (
    f"evaluation.threat_model={{norm: linf, eps: {EPS}}}",
    "evaluation.images=128",
    "evaluation.findings=none",
)
ATTACKS = {  # the evaluation of each column
    "PGD": ("evaluation.suite=null", "evaluation.attacks=[{attack: {name: pgd, steps: 20}}]"),
    "APGD": ("evaluation.suite=null", "evaluation.attacks=[{attack: {name: apgd, steps: 50, loss: margin}}]"),
    "transfer": ("evaluation.suite=null", "evaluation.attacks=[{attack: {name: transfer}}]"),
    "Square": ("evaluation.suite=null", "evaluation.attacks=[{attack: {name: square, queries: 1000}}]"),
    "cascade": ("evaluation.suite=cascade", "evaluation.findings=budget"),
}
TRAINED = (
    "training.loss=natural",
    "training.keep=last",
    "training.validate_every=1000",
    "training.ema=null",
    "training.validation_images=200",
)
ON_SETS = ("training.epochs=60", "training.batch_size=30")
ON_ALL = {"digits": ("training.epochs=12",), "fashion-mnist": ("data.limit=3000", "training.epochs=10")}
OF = {"digits": (), "fashion-mnist": ("data.limit=3000", "method.validation_images=200")}
QUICK_SETS = (
    "method.per_class=2",
    "method.batch_size=20",
    "method.validation_images=20",
    "method.validation_steps=1",
)
QUICK_TRAINED = ("training.epochs=2", "training.validate_from=0", "training.batch_size=8")


class Row(NamedTuple):
    """A row of the table: a set and how it is deployed."""

    set: str
    deployed: str

    @property
    def label(self) -> str:
        """Return a name for tables and folders."""
        return f"{self.deployed} on {self.set}"


ROWS = tuple(Row(name, deployed) for deployed in DEPLOYED for name in SETS)


class Evidence:
    """Folders and sizes of a call."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.folder = RESULTS / ("kip-quick" if quick else "kip")
        self.target = self.folder / "reference" if quick else REFERENCE

    def pieces(self, parts: Sequence[str]) -> Iterator[tuple[str, int, Row]]:
        """Yield everything in its order, seed after seed."""
        for data in parts:
            for seed in SEEDS:
                for row in ROWS:
                    yield data, seed, row

    def place(self, data: str, seed: int, row: Row) -> Path:
        """Return where the outcome of a row is."""
        return self.target / f"{data}-seed{seed}-{row.label.replace(' ', '-')}.json"

    def distilled(self, data: str, seed: int, name: str) -> tuple[DistillConfig, Path]:
        """Learn a set, or take the real images; return how, and the folder."""
        method, options = SETS[name]
        short = (
            () if not self.quick else (*QUICK_SETS, *(() if name == "real images" else ("method.steps=2",)))
        )
        changes = (*LEARNED, *OF[data], f"threat_model.eps={EPS}", f"seed={seed}", *short, *options)
        config = robust_nas.distill_config(RECIPES[data], method, changes)
        folder = self.folder / f"{data}-seed{seed}-{name.replace(' ', '-')}"
        robust_nas.distill(config, folder, mode="resume")
        return config, folder

    def trained(self, data: str, seed: int, learned: Path | None) -> tuple[RunConfig, Path]:
        """Train a network on a learned set, or on all images; return how, and the folder."""
        if learned is None:
            folder, own = self.folder / f"{data}-seed{seed}-all-images", ON_ALL[data]
        else:
            test = f"data.options={{test: {data}}}"
            own = ("data.name=npz", f"data.path={learned / 'learned.npz'}", test, *ON_SETS)
            folder = learned.with_name(f"{learned.name}-{NETWORK}")
        short = QUICK_TRAINED if self.quick else ()
        config = robust_nas.load_config(RECIPES[data], [*TRAINED, *own, f"seed={seed}", *short])
        robust_nas.train(config, robust_nas.load_architecture(NETWORK), folder, mode="resume")
        return config, folder

    def made(self, data: str, seed: int, row: Row) -> dict[str, Any]:
        """Learn, deploy and attack; return the outcome."""
        from robust_nas.workflows.config import model_config

        _, surrogate = self.trained(data, seed, None)
        _, learned = self.distilled(data, seed, row.set)
        model = learned if row.deployed == DEPLOYED[0] else self.trained(data, seed, learned)[1]
        found: dict[str, Any] = {"data": data, "seed": seed, "row": row.label}
        for name, attack in ATTACKS.items():
            changes = [*EVALUATED, *attack, f"evaluation.surrogates=[{surrogate.resolve()}]"]
            if self.quick:
                changes.append("evaluation.images=8")
            unique = {change.partition("=")[0]: change for change in changes}  # the last one counts
            config = model_config(model, list(unique.values()))
            tree = robust_nas.run_evaluation(
                config, model, model / f"evaluation-{name.lower()}", mode="resume"
            )
            found |= {"clean": tree["clean"]["accuracy"], name: tree["robust"]["accuracy"]}
            found["images"] = tree["robust"]["images"]
        found["verdict"] = tree["verdict"]["status"]  # of the cascade, the last
        found["gap"] = max(found[name] for name in ATTACKS) - min(found[name] for name in ATTACKS)
        return found


def table(outcomes: Sequence[dict[str, Any]], data: str) -> str:
    """Return the headline and a Markdown table of one dataset: means and, over the seeds, smallest and largest."""
    columns = ("gap", "clean", *ATTACKS)
    lines = [f"| {' | '.join(('model', *columns, 'verdicts'))} |", "|---" * (len(columns) + 2) + "|"]
    headline = []
    for row in ROWS:
        mine = [each for each in outcomes if each["data"] == data and each["row"] == row.label]
        if not mine:
            continue
        words = [each["verdict"] for each in mine]
        verdicts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
        lines.append(f"| {' | '.join((row.label, *(spread(mine, key) for key in columns), verdicts))} |")
        means = {name: statistics.mean(each[name] for each in mine) for name in ATTACKS}
        weakest, strongest = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
        gap, hidden = (100 * (means[name] - means[strongest]) for name in (weakest, "PGD"))
        said = f"{100 * means[weakest]:.1f} % under {weakest}, {100 * means[strongest]:.1f} % under"
        headline.append(
            f"{row.label}: {said} {strongest}, gap {gap:.1f} points; PGD alone hides {hidden:.1f}"
        )
    return "\n".join(["\n".join(headline), "", *lines]) + "\n"


def spread(outcomes: Sequence[dict[str, Any]], key: str) -> str:
    """Return a share in %, its mean and range over seeds."""
    shares = [100 * each[key] for each in outcomes]
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
    for data, seed, row in evidence.pieces(options.parts):
        place = evidence.place(data, seed, row)
        if place.exists():
            continue
        if time.monotonic() - began > 60 * options.minutes:
            print(f"ended after {options.minutes:g} minutes; the same command goes on", file=sys.stderr)
            break
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, evidence.made(data, seed, row))
        print(f"{data}, seed {seed}: {row.label}", flush=True)
    outcomes = [read_json(path) for path in sorted(evidence.target.glob("*-seed*.json"))]
    for data in RECIPES:
        if any(each["data"] == data for each in outcomes):
            text = table(outcomes, data)
            write_atomic(evidence.target / f"{data}.md", text.encode())
            print(f"\n{data}\n\n{text}")


if __name__ == "__main__":
    main()
