"""Search strategies on a table of NAS-RobBench-201 (docs/how-to/tables.md), next to bars measured on the full table.

    .venv/bin/python scripts/evidence_tables.py robust.csv.gz --latency latency.csv.gz [--out results/reference/tables]

With one objective (`advtrain/cifar10/val_pgd_8_acc`), with the latency of each device as a second, and with the clean
accuracy as a third. Own strategies have 200 runs, Optuna's 20. `--work` holds the runs: after a kill the same command
goes on. Writes `<out>/<goal>.csv` and prints the tables.

The bars are our own earlier measurement on the full table (6,466 networks, mean best value over 300 runs, sequential
strategies, draws uniform over the 15,625 codes). A curve holds a bar where its interval reaches it: its upper end,
rounded to four decimals, is not below the bar. They do not apply to another table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from robust_nas.cli import common
from robust_nas.files import write_atomic
from robust_nas.search import Table, load_table, load_with_latency
from robust_nas.search.sampled.goal import Direction
from robust_nas.search.tables import LATENCY
from robust_nas.workflows.benchmark_strategies import StrategyBenchmark, benchmark_strategies

OUT, WORK = Path("results/reference/tables"), Path("results/tables")
ROBUST, CLEAN = "advtrain/cifar10/val_pgd_8_acc", "advtrain/cifar10/val_acc"
NETWORKS, OPTIMUM = 6466, 0.4811  # of the full table
BARS = {
    "random": (0.4637, 0.4676, 0.4704, 0.4726, 0.4738),
    "evolution": (0.4650, 0.4716, 0.4769, 0.4795, 0.4804),
    "local-search": (0.4708, 0.4773, 0.4806, 0.4811, 0.4811),
}  # at 25, 50, 100, 200 and 300 evaluations
AHEAD = 100  # evaluations at which strategies are compared with random draws


def main() -> None:
    """Run every benchmark, write its curves, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--latency", type=Path)
    parser.add_argument("--devices", default="raspi4,eyeriss", help="columns of --latency")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--external-runs", type=int, default=20, help="of Optuna's strategies")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    alone = load_table(given.table)
    goals: dict[str, tuple[Table, dict[str, Direction]]] = {"robust": (alone, {ROBUST: "max"})}
    for device in given.devices.split(",") if given.latency else ():
        joined = load_with_latency(given.table, given.latency, device)
        goals[f"robust-{device}"] = joined, {ROBUST: "max", LATENCY: "min"}
        goals[f"robust-clean-{device}"] = joined, {ROBUST: "max", CLEAN: "max", LATENCY: "min"}
    given.out.mkdir(parents=True, exist_ok=True)
    with common.progress(quiet=False) as report:
        for name, (table, objectives) in goals.items():
            found = benchmark_strategies(
                table,
                objectives,
                runs=given.runs,
                external_runs=given.external_runs,
                out=given.work / name,
                progress=report,
            )
            write_atomic(given.out / f"{name}.csv", found.to_csv().encode())
            print(f"\n## {name}\n\n{markdown(found)}\n\n{ahead(found)}")
            for label, reason in found.left_out.items():
                print(f"Left out: {label}: {reason}")
            if name == "robust":
                print(f"\n{compared(found, len(alone))}")


def markdown(found: StrategyBenchmark) -> str:
    """Return the means with their intervals; hypervolumes as shares of that of the table's front."""
    scale = 100 / found.optimum if found.reference else 1.0
    digits = 1 if found.reference else 4
    lines = [
        f"| strategy | {' | '.join(map(str, found.evaluations))} | runs | CPU s |",
        f"|---|{'---|' * (len(found.evaluations) + 2)}",
    ]
    for name, one in found.strategies.items():
        points = [one.at(number) for number in found.evaluations]
        cells = [
            f"{scale * p.mean:.{digits}f} [{scale * p.low:.{digits}f}, {scale * p.high:.{digits}f}]"
            for p in points
        ]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {one.runs} | {one.seconds:.0f} |")
    what = "hypervolume, % of that of the table's front" if found.reference else f"best {ROBUST}"
    point = "; ".join(f"{key} {value:.4g}" for key, value in found.reference.items())
    above = f", reference point {point}" if point else ""
    return "\n".join(
        [f"{what}: {found.networks} networks, whole table {found.optimum:.5g}{above}", "", *lines]
    )


def ahead(found: StrategyBenchmark) -> str:
    """Return which strategies are ahead of random draws, with intervals apart."""
    random = found.strategies["random"].at(AHEAD)
    words = []
    for name, one in found.strategies.items():
        point = one.at(AHEAD)
        if name != "random":
            word = (
                "ahead of"
                if point.low > random.high
                else "behind"
                if point.high < random.low
                else "level with"
            )
            words.append(f"{name} {word} random")
    return f"At {AHEAD} evaluations, intervals apart or level: {', '.join(words)}."


def compared(found: StrategyBenchmark, networks: int) -> str:
    """Return which bars hold, where they apply."""
    if networks != NETWORKS or round(found.optimum, 4) != OPTIMUM:
        return (
            f"Bars: they are of the full table ({NETWORKS} networks, optimum {OPTIMUM}) and do not apply to this one "
            f"({networks} networks, optimum {found.optimum:.4f})."
        )
    lines = ["Bars: our own earlier measurement on the full table.", ""]
    for name, bars in BARS.items():
        for number, bar in zip(found.evaluations, bars, strict=True):
            point = found.strategies[name].at(number)
            held = round(point.high, 4) >= bar
            lines.append(
                f"{name} at {number}: {point.mean:.4f} [{point.low:.4f}, {point.high:.4f}], bar {bar:.4f}: "
                f"{'holds' if held else 'DOES NOT HOLD'}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
