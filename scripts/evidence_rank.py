"""Rankings by untrained networks for the docs: how they agree with adversarial training, on two tables.

    .venv/bin/python scripts/evidence_rank.py nb201 --table nasrobbench201.csv.gz --images cifar10/
    .venv/bin/python scripts/evidence_rank.py nb201 --table ... --images ... --sample 300 --seed 1 --proxies
    .venv/bin/python scripts/evidence_rank.py tiny --table tiny_robustbench.csv.gz --images cifar10/ [--proxies]

Tables: NAS-RobBench-201 as CSV (`arch_str`, `advtrain/cifar10/val_pgd_8_acc`), and Tiny-RobustBench (DARTS space,
`adversarial_best`). Images: CIFAR-10 as a folder of images. `--proxies` ranks by every proxy of the registry in turn,
from one measurement. Every architecture is kept when it is measured: after a kill the same command goes on. Writes
`<out>/<table>[-sample-seed][-proxies]/`: the run folder of `robust-nas rank`, and `agreement.csv`: Spearman's
correlation over all, in the top half by the truth, partial given the parameters, and the difference to the parameters,
each with a bootstrap interval over architectures (95 %).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

import robust_nas
from robust_nas.cli import common
from robust_nas.runs import write_atomic
from robust_nas.search import PROXIES
from robust_nas.spaces import NASBench201Architecture

Floats = NDArray[np.float64]

OUT = Path("results/reference/rank")
KEPT = ("config.yaml", "ranking.csv", "agreement.csv")  # no machine's paths
SETTINGS = (
    "device=cpu",
    "threads=1",
    "data.name=image-folder",
    "data.limit=2000",
    "data.normalise=dataset",
    "seed=0",
)
DRAWS, CONFIDENCE = 2000, 0.95  # of the bootstrap


class Row(NamedTuple):
    """An architecture of a table as text, the name that its ranking gets, and what it reached after training."""

    text: str
    name: str
    truth: float


def nb201_rows(rows: list[dict[str, str]]) -> list[Row]:
    """Return the rows of NAS-RobBench-201."""
    texts = [row["arch_str"] for row in rows]
    names = [NASBench201Architecture.from_string(text).name for text in texts]
    truths = [float(row["advtrain/cifar10/val_pgd_8_acc"]) for row in rows]
    return [Row(*each) for each in zip(texts, names, truths, strict=True)]


def tiny_rows(rows: list[dict[str, str]]) -> list[Row]:
    """Return the rows of Tiny-RobustBench; two lists of edges and of output nodes make a genotype."""
    found = []
    for row in rows:
        cells = {key: json.loads(row[key]) for key in ("normal", "normal_concat", "reduce", "reduce_concat")}
        parts = ", ".join(
            f"{key}={[tuple(e) if isinstance(e, list) else e for e in v]}" for key, v in cells.items()
        )
        name = f"t{row['seed']}"
        found.append(Row(f"{name} = Genotype({parts})", name, float(row["adversarial_best"])))
    return found


TABLES: dict[str, Callable[[list[dict[str, str]]], list[Row]]] = {"nb201": nb201_rows, "tiny": tiny_rows}


def main() -> None:
    """Rank the architectures of a table, and write how the ranks agree with the truth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=TABLES)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--sample", type=int, help="a random part of the table")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--proxies", action="store_true", help="every proxy by itself too")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="needs --out")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.set and given.out == OUT:
        parser.error(f"--set is not for {OUT}; name another folder with --out")
    rows = TABLES[given.which](read(given.table))
    label = given.which
    if given.sample is not None:
        kept = np.random.default_rng(given.seed).permutation(len(rows))[: given.sample]
        rows, label = [rows[index] for index in sorted(kept)], f"{label}-{given.sample}-{given.seed}"
    if given.proxies:
        label += "-proxies"
    work = Path("results") / "rank" / given.out.name / label
    work.parent.mkdir(parents=True, exist_ok=True)
    cells = work.with_suffix(".txt")
    write_atomic(cells, "\n".join(row.text for row in rows).encode())
    changes = [*SETTINGS, f"name=rank-{label}", f"data.path={given.images}"]
    if given.proxies:
        changes.append(f"method.proxies=[{', '.join(PROXIES.built_in)}]")
    config = robust_nas.load_ranking([str(cells)], overrides=[*changes, *given.set])
    with common.progress(quiet=False) as report:
        found = robust_nas.rank(config, work, mode="resume", progress=report)
    ranked = {row["name"]: row for row in found.record["ranking"]}
    table = agreement([ranked[row.name] for row in rows], np.array([row.truth for row in rows]))
    write_atomic(work / "agreement.csv", table.encode())
    (given.out / label).mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copy(work / name, given.out / label / name)
    print(table)


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, compressed or not."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return list(csv.DictReader(file))


def agreement(rows: Sequence[dict[str, Any]], truth: Floats) -> str:
    """Return a CSV table with a line a score: correlations with the truth, with intervals."""
    params = column(rows, "params")
    scores = {"params": params, "macs": column(rows, "macs"), "score": column(rows, "score")}
    for name in PROXIES.built_in:
        key = f"proxy_{name.replace('-', '_')}"
        if key in rows[0]:
            sign = 1.0 if PROXIES.get(name).higher_is_better else -1.0
            scores[name] = sign * column(rows, key)
    usual = ("proxy_params", "proxy_jacob_cov", "proxy_synflow")
    if all(key in rows[0] for key in usual):  # the rank sum of the default, from the means over draws
        scores["params + jacob-cov + synflow"] = sum_of_ranks([column(rows, key) for key in usual])
        scores["params + synflow"] = sum_of_ranks([column(rows, key) for key in (usual[0], usual[2])])
        scores["params + jacob-cov"] = sum_of_ranks([column(rows, key) for key in usual[:2]])
    n = len(truth)
    chosen = np.random.default_rng(0).integers(n, size=(DRAWS, n))
    base = statistics_of(params, truth, params)
    base_draws = np.array([statistics_of(params[i], truth[i], params[i]) for i in chosen])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("all", "top half", "partial", "kendall")
    header = [
        f"{name}{end}"
        for name in (*names, "all - params", "top half - params")
        for end in ("", " low", " high")
    ]
    writer.writerow(["score", "n", *header, "cpu seconds an architecture"])
    seconds = float(np.mean(column(rows, "cpu_seconds")))
    for name, score in scores.items():
        value = statistics_of(score, truth, params)
        draws = np.array([statistics_of(score[i], truth[i], params[i]) for i in chosen])
        both = [*zip(value, draws.T, strict=True)]
        both += [(value[k] - base[k], draws[:, k] - base_draws[:, k]) for k in (0, 1)]
        cells = [f"{x:.3f}" for one, moved in both for x in (one, *interval(moved))]
        writer.writerow([name, n, *cells, f"{seconds:.3f}"])
    return text.getvalue()


def column(rows: Sequence[dict[str, Any]], key: str) -> Floats:
    """Return a column as numbers."""
    return np.array([row[key] for row in rows], dtype=np.float64)


def sum_of_ranks(columns: Sequence[Floats]) -> Floats:
    """Return the sum of the ranks."""
    return np.asarray(np.sum([stats.rankdata(each) for each in columns], axis=0), dtype=np.float64)


def statistics_of(score: Floats, truth: Floats, params: Floats) -> tuple[float, float, float, float]:
    """Return Spearman over all and in the top half by the truth, partial given params, and Kendall's tau."""
    top = truth >= np.median(truth)
    a, b, c = spearman(score, truth), spearman(score, params), spearman(truth, params)
    rest = (1 - b * b) * (1 - c * c)
    partial = (a - b * c) / rest**0.5 if rest > 1e-12 else 0.0
    return a, spearman(score[top], truth[top]), partial, float(stats.kendalltau(score, truth)[0])


def spearman(x: Floats, y: Floats) -> float:
    """Return Spearman's rank correlation."""
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def interval(draws: Floats) -> tuple[float, float]:
    """Return the percentile interval."""
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


if __name__ == "__main__":
    main()
