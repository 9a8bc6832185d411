"""Does a Sparta that was trained elsewhere serve, frozen? Both transfers with their controls, over three seeds.

    .venv/bin/python scripts/evidence_sparta.py [--minutes 10] [--seeds 0 1 2] [--quick]

    donor   WRN-10-1 with Sparta, on limited Fashion-MNIST; one for each seed
    depth   WRN-16-1 on the same images:   silu | sparta from the start | frozen, the donor's Sparta
    data    WRN-10-1 on digits (8x8):      silu | sparta from the start | frozen, the donor's Sparta

Every network is trained and attacked by one recipe for its images. After each one `table.md`, `sparta.csv` and the
configs in results/reference/sparta/ are written; runs are in results/sparta/. What is finished is kept: the same
command goes on where it was. --minutes begins nothing new after so many; --quick shows that all of it runs, writes to
results/sparta-quick/ and says nothing about Sparta.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats

import robust_nas
from robust_nas.config import to_yaml
from robust_nas.run_folder import read_json, write_atomic
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.places import RESULTS

REFERENCE = Path("results/reference/sparta")
EVALUATED = ("evaluation.suite=cascade", "evaluation.images=96")
FASHION = ("fashion", "data.limit=600", "training.epochs=8", *EVALUATED)
DIGITS = ("quickstart", "data.limit=800", *EVALUATED)
QUICK = ("data.limit=200", "training.epochs=1", "training.validate_from=0", "evaluation.images=10")
ARMS = {"silu": "silu", "sparta": "sparta", "frozen": "sparta"}  # and the activation of each
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Part:
    """A network to be trained and attacked."""

    transfer: str  # donor, depth or data
    arm: str
    seed: int
    size: str  # such as wrn-10-1
    recipe: tuple[str, ...]  # and overrides

    @property
    def name(self) -> str:
        """Return the name of its folder."""
        return f"{self.transfer}-{self.arm}-seed{self.seed}"


def parts(seeds: Sequence[int]) -> Iterator[Part]:
    """Yield all parts, a seed after the other."""
    for seed in seeds:
        yield Part("donor", "sparta", seed, "wrn-10-1", FASHION)
        for arm in ARMS:
            yield Part("depth", arm, seed, "wrn-16-1", FASHION)
            yield Part("data", arm, seed, "wrn-10-1", DIGITS)


def config_of(part: Part, folder: Path, more: Sequence[str]) -> RunConfig:
    """Return the config of a part; a frozen one names its donor, which is finished then."""
    recipe, *overrides = part.recipe
    hooks = []
    if part.arm == "frozen":
        donor = folder / f"donor-sparta-seed{part.seed}"
        hooks = [f"training.hooks=[{{name: frozen-sparta, model: '{donor}'}}]"]
    return robust_nas.load_config(recipe, [*overrides, *more, f"seed={part.seed}", *hooks])


def outcome(part: Part, folder: Path, more: Sequence[str]) -> dict[str, Any]:
    """Train and attack, or read what is finished; return a row of the table."""
    config = config_of(part, folder, more)
    architecture = robust_nas.load_architecture(f"{part.size}.{ARMS[part.arm]}")
    model = robust_nas.train(config, architecture, folder / part.name, mode="resume")
    tree = robust_nas.run_evaluation(config, model, mode="resume")
    trained = read_json(model / "result.json")
    return {
        "transfer": part.transfer,
        "arm": part.arm,
        "seed": part.seed,
        "network": architecture.name,
        "params": trained["params"],
        "macs": trained["macs"],
        "images": tree["robust"]["images"],
        "clean": tree["clean"]["accuracy"],
        "robust": tree["robust"]["accuracy"],
        "robust_low": tree["robust"]["interval"][0],
        "robust_high": tree["robust"]["interval"][1],
        "verdict": tree["verdict"]["status"],
        "train_seconds": trained["seconds"],
        "attack_seconds": round(tree["seconds"] + tree["findings_seconds"], 1),
    }


def spread(values: Sequence[float], sign: str = "") -> str:
    """Return mean and standard deviation of shares in percent, and Student's interval over 3 seeds or more."""
    mean = 100 * statistics.mean(values)
    if len(values) == 1:
        return f"{mean:{sign}.1f} (one seed)"
    sd = 100 * statistics.stdev(values)
    if len(values) < 3:
        return f"{mean:{sign}.1f} ± {sd:.1f}"
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * sd / len(values) ** 0.5
    return f"{mean:{sign}.1f} ± {sd:.1f} [{mean - half:{sign}.1f}, {mean + half:{sign}.1f}]"


def table(rows: Sequence[dict[str, Any]], about: str) -> str:
    """Return Markdown: the networks of every transfer, then the differences of the frozen ones to their controls."""
    lines = [
        about,
        "",
        "| transfer | network | arm | params | MACs, M | clean % | robust % | verdicts |",
        "|---" * 8 + "|",
    ]
    kinds = dict.fromkeys((row["transfer"], row["arm"]) for row in rows)
    found = {kind: [row for row in rows if (row["transfer"], row["arm"]) == kind] for kind in kinds}
    for (transfer, arm), mine in sorted(found.items(), key=lambda item: -len(item[0][0])):
        clean, robust = (spread([row[key] for row in mine]) for key in ("clean", "robust"))
        verdicts = ", ".join(dict.fromkeys(row["verdict"] for row in mine))
        first = mine[0]
        size = f"{first['params']:,} | {first['macs'] / 1e6:.2f}"
        lines.append(
            f"| {transfer} | {first['network']} | {arm} | {size} | {clean} | {robust} | {verdicts} |"
        )
    lines += ["", "| transfer | frozen minus | seeds | clean, points | robust, points |", "|---" * 5 + "|"]
    for transfer in ("depth", "data"):
        frozen = {row["seed"]: row for row in found.get((transfer, "frozen"), [])}
        for control in ("silu", "sparta"):
            pairs = [
                (frozen[row["seed"]], row)
                for row in found.get((transfer, control), [])
                if row["seed"] in frozen
            ]
            if pairs:
                clean, robust = (
                    spread([a[key] - b[key] for a, b in pairs], "+") for key in ("clean", "robust")
                )
                lines.append(f"| {transfer} | {control} | {len(pairs)} | {clean} | {robust} |")
    return "\n".join(lines) + "\n"


def write(rows: Sequence[dict[str, Any]], target: Path, about: str) -> None:
    """Write table and numbers."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(target / "sparta.csv", text.getvalue().encode())
    write_atomic(target / "table.md", table(rows, about).encode())


def main() -> None:
    """Run what is not finished yet, and write the table after every part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, help="begin nothing new after so many")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="one seed, one epoch, few images, elsewhere")
    options = parser.parse_args()
    folder = RESULTS / ("sparta-quick" if options.quick else "sparta")
    target = folder / "reference" if options.quick else REFERENCE
    more = QUICK if options.quick else ()
    target.mkdir(parents=True, exist_ok=True)
    about = (
        "Linf eps 0.1, cascade; mean ± standard deviation over seeds, in brackets the "
        f"{100 * CONFIDENCE:.0f} % interval (Student's t over seeds alone: it does not cover other test images). "
        "Differences are paired by seed."
    )
    began, rows = time.monotonic(), []
    for part in parts(options.seeds[:1] if options.quick else options.seeds):
        if options.minutes is not None and time.monotonic() - began > 60 * options.minutes:
            print("time is over: the same command goes on", file=sys.stderr)
            break
        if part.arm != "frozen":  # whose config names a folder of this machine
            config = config_of(part, folder, more).model_copy(update={"seed": 0})
            write_atomic(target / f"config-{part.recipe[0]}.yaml", to_yaml(config).encode())
        rows.append(outcome(part, folder, more))
        print(*rows[-1].values(), file=sys.stderr, flush=True)
        write(rows, target, about)
    print((target / "table.md").read_text())


if __name__ == "__main__":
    main()
