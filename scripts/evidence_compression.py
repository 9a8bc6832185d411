r"""What compression costs in robustness: GDWS over budgets, and CSTAR next to its baselines, over training seeds.

    .venv/bin/python scripts/evidence_compression.py results/wrn-seed0 results/wrn-seed1 --out results/compression \
        [--images 512] [KEY=VALUE ...]

Every model folder is one seed of one architecture. Each is compressed by GDWS at --macs shares of its MACs and by CSTAR
at --ratio with both baselines; all of them are declared for the test set, and the cascade attacks each through the
compressed network itself, on the same images. Writes `table.md` and `evidence.csv`: means over the seeds, and the loss
of robust accuracy against the original, image by image on the same images. What is finished is kept: after a kill the
same command goes on. --reference copies the small outcomes.
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import robust_nas
from robust_nas.cli import common
from robust_nas.run_folder import read_json, write_atomic

METHODS = ("gdws", "cstar")
KEPT = ("config.yaml", "compression.json", "latency.json")  # no machine's paths


def main() -> None:
    """Compresses every model both ways, then writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--macs", default="0.75,0.5,0.35")
    parser.add_argument("--ratio", default="4")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--reference", type=Path, help="copy what is small to this folder")
    parser.add_argument("--table-only", action="store_true", help="write the table of what is there")
    given = parser.parse_args()
    changes = [f"evaluation.images={given.images}", "compression.test=all", *given.set]
    for model in given.models:
        for method in given.methods if not given.table_only else ():
            own = {
                "gdws": [f"compression.gdws.budgets=[{given.macs}]"],
                "cstar": [f"compression.cstar.ratios=[{given.ratio}]"],
            }[method]
            other = tuple(f"compression.{name}." for name in METHODS if name != method)
            own += [change for change in changes if not change.startswith(other)]
            config = robust_nas.compression_config(model, method, own)
            folder = given.out / f"{model.name}-{method}"
            with common.progress(quiet=False) as report:
                robust_nas.compress(config, model, folder, mode="resume", progress=report)
            print(f"{folder}: done", file=sys.stderr)
    trees = {
        folder.name: read_json(folder / "compression.json")
        for model in given.models
        for method in METHODS
        if ((folder := given.out / f"{model.name}-{method}") / "compression.json").is_file()
    }
    rows = [row for name, tree in trees.items() for row in _rows(name, tree)]
    table = _table(rows)
    print(table)
    write_atomic(given.out / "table.md", table.encode())
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(given.out / "evidence.csv", text.getvalue().encode())
    if given.reference:
        for name in trees:
            target = given.reference / name
            target.mkdir(parents=True, exist_ok=True)
            for file in KEPT:
                shutil.copyfile(given.out / name / file, target / file)
        for file in ("table.md", "evidence.csv"):
            shutil.copyfile(given.out / file, given.reference / file)


def _rows(name: str, tree: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for every network that met the test set."""
    first = tree["networks"][0]
    rows = []
    for row in tree["networks"]:
        test, base = row["test"], first["test"]
        if test is None:
            continue
        rows.append(
            {
                "run": name,
                "network": name.rsplit("-seed", 1)[0],
                "label": row["label"],
                "seed": tree["seed"],
                "params": row["params"],
                "macs": row["macs"],
                "macs_share": row["macs"] / first["macs"],
                "params_share": row["params"] / first["params"],
                **{
                    f"{runtime}_{batch}_ms": timing["median_ms"]
                    for runtime, batches in row["latency_ms"].items()
                    for batch, timing in batches.items()
                },
                "validation_robust": row["validation"]["robust"],
                "clean": test["clean"]["accuracy"],
                "robust": test["robust"]["accuracy"],
                "images": test["robust"]["images"],
                "loss": base["robust"]["accuracy"] - test["robust"]["accuracy"],
                "verdict": test["verdict"]["status"],
            }
        )
    return rows


def _table(rows: list[dict[str, Any]]) -> str:
    """Means over the seeds, with every seed's loss."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["network"], row["label"]].append(row)
    seen: set[tuple[str, str, int]] = set()
    lines = [
        "| network | form | MACs | params | ORT ms, batch 1 | clean % | worst case % | loss, points | verdicts |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (network, label), group in groups.items():
        kept = [row for row in group if (network, label, row["seed"]) not in seen]
        seen |= {(network, label, row["seed"]) for row in kept}
        if not kept:
            continue

        def mean(key: str, kept: list[dict[str, Any]] = kept) -> float:
            return statistics.fmean(row[key] for row in kept)

        speed = f"{mean('onnxruntime_1_ms'):.2f}" if "onnxruntime_1_ms" in kept[0] else "-"
        losses = ", ".join(f"{100 * row['loss']:+.1f}" for row in kept)
        verdicts = ", ".join(sorted({row["verdict"] for row in kept}))
        lines.append(
            f"| {network} | {label} | {mean('macs') / 1e6:.2f} M ({mean('macs_share'):.2f}) "
            f"| {mean('params'):,.0f} ({mean('params_share'):.2f}) | {speed} | {100 * mean('clean'):.1f} "
            f"| {100 * mean('robust'):.1f} | {'' if label == 'original' else losses} | {verdicts} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
