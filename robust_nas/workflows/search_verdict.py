"""The verdict on a search as a job: from its folders to `verdict.json` and to cells that show it.

`verdict.json` lies in the folder of the search, over all its seeds: schema_version, and what
`robust_nas.search.verdict` says. It is made from what the folder holds, so it is made again whenever that has grown: a
search that gets controls or seeds later gets another verdict. The cells of every seed are drawn with the weight of each
edge, its noise, and the word.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from robust_nas import figures
from robust_nas.errors import RunError
from robust_nas.files import is_writable
from robust_nas.records import RESULT, Shape, read_environment, read_json, read_lines
from robust_nas.run_folder import METRICS, write_json
from robust_nas.search.strategy import counted
from robust_nas.search.verdict import SearchEvidence, SeedEvidence, judge
from robust_nas.search.verdict.margin import edge_table
from robust_nas.spaces import CellArchitecture, load_architecture
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.controls import COMPARED, FILE, RESULT_LABEL
from robust_nas.workflows.search_job import SearchResult, caption_of

VERDICT = "verdict.json"
CELLS = Path("figures/cells")  # without a suffix
SCHEMA_VERSION = 1
CONTROLS = 3  # that the printed command asks for
FOLDER = "FOLDER"  # in that command: of the search or run, which may be moved
FINDING: Shape = {
    "name": str,
    "status": frozenset({"PASS", "WARN", "FAIL", "NOT RUN"}),
    "value": (float, None),
    "allowed": str,
    "text": str,
    "next_step": str,
}
JUDGED: Shape = {  # what is read of `verdict.json`
    "schema_version": int,
    "findings_version": int,
    "status": frozenset({"FAILED", "CONCLUSIVE", "INCONCLUSIVE"}),
    "reasons": [str],
    "next_step": str,
    "findings": [FINDING],
}


def judge_search(
    config: RunConfig, found: SearchResult, controls: Path, *, model: Path | None = None, verb: str = "search"
) -> dict[str, Any]:
    """Return the verdict on a finished search, write it, and draw its cells again where it is another one.

    `controls` is the folder of its controls, if there are any, and `model` that of the trained result where it is
    elsewhere. `verb` is the command that made the search, which is also the one that adds controls.
    """
    folder, folders = found.folder, seed_folders(found)
    seeds = [seed_evidence(folders[seed], seed) for seed in folders]
    evidence = SearchEvidence(
        strategy=config.search,
        space=config.space.load(),
        classes=found.record["classes"],
        seeds=seeds,
        controls=_compared(found.architecture, controls, controls / RESULT_LABEL if model is None else model),
        add_controls=f"robust-nas {verb} --resume {FOLDER} search.controls={CONTROLS}",
    )
    tree = {"schema_version": SCHEMA_VERSION, **judge(evidence).to_dict()}
    path = folder / VERDICT
    if is_writable(folder):
        if not path.is_file() or _read(path) != tree:
            write_json(path, tree)
        for one in seeds:
            inside = folders[one.seed]
            drawn = (
                (inside / CELLS).with_suffix(".png").is_file()
            )  # what failed is drawn by the search itself
            if drawn and _shown_verdict(inside / CELLS) != tree["status"]:
                with figures.optional("cells"):
                    _draw(config, replace(evidence, seeds=[one]), inside, tree["status"])
    return tree


def seed_folders(found: SearchResult) -> dict[int, Path]:
    """Return the folder of every seed of a search, by the seed; the result is that of `found.record["seed"]`."""
    if "per_seed" not in found.record:
        return {found.record["seed"]: found.folder}
    return {one["seed"]: found.folder / f"seed-{one['seed']}" for one in found.record["per_seed"]}


def _read(path: Path) -> dict[str, Any] | None:
    """Return the verdict that is there; None for a damaged one, which is replaced."""
    try:
        return read_json(path)
    except RunError:
        return None


def seed_evidence(folder: Path, seed: int) -> SeedEvidence:
    """Return what the verdict reads of a finished search of one seed."""
    result = read_json(folder / RESULT)
    return SeedEvidence(
        seed=seed,
        architecture=cast(CellArchitecture, load_architecture(folder / "architecture.yaml")),
        records=counted(read_lines(folder / METRICS), result.get("stopped")),
        result=result,
    )


def _compared(result: CellArchitecture, controls: Path, model: Path) -> dict[str, Any] | None:
    """Return the content of `controls.json`; None without it, and where it is of another result.

    A search that was repeated with more seeds may have another one.
    """
    if not (controls / FILE).is_file():
        return None
    if load_architecture(model / "architecture.yaml") != result:
        return None
    return read_json(controls / FILE, COMPARED)


def _shown_verdict(stem: Path) -> str | None:
    """Return the word with which the cells are drawn, or None."""
    path = stem.with_suffix(".csv")
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        return next((row.get("verdict") for row in csv.DictReader(file)), None)


def _draw(config: RunConfig, evidence: SearchEvidence, folder: Path, word: str) -> None:
    """Draw the cells of a search of one seed with the word, and weight and noise of every edge where they are known."""
    (one,) = evidence.seeds
    dataset = read_environment(folder).get("dataset", "unknown data")
    cells, concat, inputs = one.architecture.drawing()
    figures.draw_cells(
        cells,
        folder / CELLS,
        concat=concat,
        inputs=inputs,
        caption=caption_of(config, dataset, one.result.get("images"), one.seed),
        weights=_weights(evidence, folder / "alphas.json"),
        verdict=word,
    )


def _weights(evidence: SearchEvidence, alphas: Path) -> figures.Weights | None:
    """Return weight and noise of every edge per kind and node; None for a search without `alphas.json`."""
    if not alphas.is_file():
        return None
    space, (one,) = evidence.space, evidence.seeds
    final = read_json(alphas, {"softmax": {str: [[float]]}})["softmax"]
    noise = {
        (row["kind"], row["node"], row["operation"], row["source"]): row["noise"]
        for row in edge_table(evidence)
    }

    def weight(kind: str, node: int, operation: str, source: int) -> figures.Weight:
        row = final[kind][space.edges.index((node, source))]
        known = noise.get((kind, node, operation, source))
        return figures.Weight(row[space.operations.index(operation)], known)

    return {
        cell.kind: [
            [weight(cell.kind, number, *edge) for edge in node] for number, node in enumerate(cell.nodes)
        ]
        for cell in one.architecture.genotype
    }
