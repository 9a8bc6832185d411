"""What a search is worth: its networks next to controls of equal MACs, all trained and attacked by one recipe.

    .venv/bin/python scripts/evidence.py fashion data.limit=4000 --search-seeds 0 1 --seeds 0 1
    .venv/bin/python scripts/evidence.py dsara-cifar10 data.name=image-folder data.path=... search.order=1

1. search: one architecture for each of --search-seeds;
2. controls: for every architecture found a random one of its space with MACs within 2 % (--random), and the cells of
   DARTS_V2 with as many cells, and channels for MACs as near as whole channels allow;
3. each is trained by the recipe with each of --seeds (of weights, order, limit, split and test images), and attacked by
   the cascade; every outcome is added to `table.md`, `evidence.csv` and the figure in results/<name>/ at once.

What is finished is kept: after a kill the same command goes on. --reference copies the small outcomes. What the search
costs is measured by `bench_search.py`.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import robust_nas
from robust_nas.config import to_yaml
from robust_nas.evaluation.options import EvaluationOptions
from robust_nas.figures import style
from robust_nas.run_folder import read_json, write_atomic
from robust_nas.spaces import CellArchitecture, Size
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.places import RESULTS

TOLERANCE = 0.02  # of a random control's MACs
KEPT = (  # of every run
    "config.yaml",
    "architecture.yaml",
    "result.json",
    "metrics.jsonl",
    "evaluation/evaluation.json",
    "figures/cells.svg",
)
MAX_BYTES = 100_000  # of a file that --reference copies


@dataclass(frozen=True)
class Network:
    """An architecture and what it is here: found by a search, random, or DARTS_V2."""

    label: str
    group: str
    architecture: CellArchitecture


def candidates(config: RunConfig, folder: Path, search_seeds: Sequence[int], random: int) -> list[Network]:
    """The architectures found, a random one of equal MACs next to each (or more), and DARTS_V2 near them."""
    found, drawn = [], []
    dataset = robust_nas.load_dataset(config.data, seed=config.seed)
    shape, classes = dataset.shape, dataset.classes
    for seed in search_seeds:
        one = config.model_copy(update={"seed": seed})
        result = robust_nas.run_search(one, folder / f"search-seed{seed}", mode="resume")
        macs, architecture = result.record["macs"], result.architecture
        found.append(Network(f"searched-{seed}", "searched", architecture))
        for draw in range(random):
            control = robust_nas.sample(
                config.space.load(),
                seed + 1000 * draw,
                macs=(macs * (1 - TOLERANCE), macs * (1 + TOLERANCE)),
                size=Size(cells=architecture.cells, channels=architecture.channels),
                input_shape=shape,
                classes=classes,
            )
            drawn.append(Network(f"random-{seed}" + f"-{draw}" * (random > 1), "random", control))
    wanted = statistics.mean(robust_nas.count(n.architecture, shape, classes).macs for n in found)
    darts = robust_nas.load_architecture("darts_v2")
    assert isinstance(darts, CellArchitecture)  # noqa: S101
    sizes = [
        darts.resized(found[0].architecture.cells, channels)
        for channels in range(2, 4 * found[0].architecture.channels)
    ]
    nearest = min(sizes, key=lambda each: abs(robust_nas.count(each, shape, classes).macs - wanted))
    return [*found, *drawn, Network("darts_v2", "darts_v2", nearest)]


def outcome(config: RunConfig, network: Network, folder: Path, seed: int) -> dict[str, Any]:
    """Trains and attacks a network with one seed; returns a row of the table."""
    one = config.model_copy(update={"seed": seed})
    model = robust_nas.train(one, network.architecture, folder / f"{network.label}-seed{seed}", mode="resume")
    tree = robust_nas.run_evaluation(one, model, mode="resume")
    trained, robust = read_json(model / "result.json"), tree["robust"]
    return {
        "network": network.label,
        "group": network.group,
        "params": trained["params"],
        "macs": trained["macs"],
        "seed": seed,
        "images": robust["images"],
        "clean": tree["clean"]["accuracy"],
        "robust": robust["accuracy"],
        "robust_low": robust["interval"][0],
        "robust_high": robust["interval"][1],
        "verdict": tree["verdict"]["status"],
        "train_seconds": trained["seconds"],
        "attack_seconds": round(tree["seconds"] + tree["findings_seconds"], 1),
    }


def table(rows: list[dict[str, Any]], config: RunConfig, seeds: Sequence[int]) -> str:
    """Markdown: a line a network, a column a seed; means and standard deviations where two seeds or more are there."""
    threat = config.evaluation.threat_model
    what = f"cascade, {threat.norm} eps {threat.eps:.4g}, {config.evaluation.images} images"
    columns = [f"robust %, {what}, seed {seed} [95 % over images]" for seed in seeds]
    lines = [
        f"| network | params | MACs, M | clean %, mean ± sd of seeds | {' | '.join(columns)} | "
        "robust %, mean ± sd of seeds | verdicts |",
        "|---" * (6 + len(seeds)) + "|",
    ]
    for label in dict.fromkeys(row["network"] for row in rows):
        mine = {row["seed"]: row for row in rows if row["network"] == label}
        first = next(iter(mine.values()))
        cells = [
            f"{100 * row['robust']:.1f} [{100 * row['robust_low']:.1f}, {100 * row['robust_high']:.1f}]"
            if (row := mine.get(seed))
            else "missing"
            for seed in seeds
        ]
        clean, robust = (_spread([row[key] for row in mine.values()]) for key in ("clean", "robust"))
        verdicts = ", ".join(dict.fromkeys(row["verdict"] for row in mine.values()))
        lines.append(
            f"| {label} | {first['params']:,} | {first['macs'] / 1e6:.2f} | {clean} | {' | '.join(cells)} | "
            f"{robust} | {verdicts} |"
        )
    return "\n".join(lines) + "\n"


def _spread(shares: list[float]) -> str:
    mean = f"{100 * statistics.mean(shares):.1f}"
    return f"{mean} ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else f"{mean} (one seed)"


def plot(rows: list[dict[str, Any]], stem: Path, caption: str) -> None:
    """Robust accuracy of every network, a point a seed with its interval over images; its numbers as CSV."""
    labels = list(dict.fromkeys(row["network"] for row in rows))
    colours = {"searched": style.BLUE, "random": style.VERMILLION, "darts_v2": style.GREEN}
    seeds = sorted({row["seed"] for row in rows})
    figure, (axes,) = style.new_figure(height=3.6, width=6.8, caption=caption)
    for row in rows:
        x = labels.index(row["network"]) + 0.12 * (seeds.index(row["seed"]) - (len(seeds) - 1) / 2)
        below, above = row["robust"] - row["robust_low"], row["robust_high"] - row["robust"]
        axes.errorbar(
            x, 100 * row["robust"], yerr=[[100 * below], [100 * above]], fmt="o", markersize=4,
            color=colours[row["group"]], capsize=2,
        )  # fmt: skip
    axes.set_xticks(
        range(len(labels)),
        [
            f"{label}\n{next(r['macs'] for r in rows if r['network'] == label) / 1e6:.2f} M MACs"
            for label in labels
        ],
    )
    axes.set_ylabel("robust accuracy (%), a point a seed,\n95% Wilson interval over images")
    style.save(figure, stem, (list(rows[0]), [list(row.values()) for row in rows]))


def copy_small(folder: Path, target: Path) -> None:
    """Copies the small outcomes: table, numbers, figure, config, and for each run what KEPT names, in one folder."""
    files = {
        path: target / path.name for path in folder.glob("*") if path.is_file() and path.suffix != ".svg"
    }
    for run in (path for path in folder.iterdir() if path.is_dir()):
        for place in KEPT:
            files[run / place] = target / run.name / Path(place).name
    for path, copy in files.items():
        if path.is_file() and path.stat().st_size <= MAX_BYTES:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def main() -> None:
    """Runs what is not finished yet, and writes the table after every outcome."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", help="values of the recipe, as a.b=c")
    parser.add_argument("--search-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of training and evaluation")
    parser.add_argument("--random", type=int, default=1, help="random controls for each architecture found")
    parser.add_argument("--images", type=int, default=256, help="test images that are attacked")
    parser.add_argument("--reference", type=Path, help="folder for copies of the small outcomes")
    options = parser.parse_intermixed_args()
    config = robust_nas.load_config(options.recipe, options.overrides)
    evaluation = EvaluationOptions(threat_model=config.evaluation.threat_model, images=options.images)
    config = config.model_copy(update={"evaluation": evaluation})
    folder = RESULTS / config.name
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "config.yaml", to_yaml(config).encode())
    networks = candidates(config, folder, options.search_seeds, options.random)
    threat = evaluation.threat_model
    about = f"{config.name}: cascade, {threat.norm} eps {threat.eps:.4g}, {options.images} images"
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        for network in networks:
            rows.append(outcome(config, network, folder, seed))
            print(*rows[-1].values(), file=sys.stderr, flush=True)
            write_atomic(folder / "table.md", table(rows, config, options.seeds).encode())
            trained = _listed(sorted({row["seed"] for row in rows}))
            seeds = f"training seeds {trained}, search seeds {_listed(options.search_seeds)}"
            plot(rows, folder / "evidence", f"{about}; {seeds}")
    print((folder / "table.md").read_text())
    if options.reference:
        copy_small(folder, options.reference)


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


if __name__ == "__main__":
    main()
