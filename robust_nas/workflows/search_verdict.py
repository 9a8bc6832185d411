"""The verdict on a search as a job: from its folders to `verdict.json` and to cells that show it.

`verdict.json` lies in the folder of the search, over all its seeds: schema_version, and what
`robust_nas.search.verdict` says. It is made from what the folder holds, so it is made again whenever that has grown: a
search that gets controls or seeds later gets another verdict. The cells of every seed are drawn with the weight of each
edge, its noise, and the word.
"""

from __future__ import annotations

import csv
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from robust_nas import figures
from robust_nas.errors import RunError
from robust_nas.files import is_writable
from robust_nas.records import RESULT, Shape, read_environment, read_json, read_lines
from robust_nas.runs import METRICS, write_json
from robust_nas.search.edge_noise import edge_noise
from robust_nas.search.verdict import SearchEvidence, SeedEvidence, judge
from robust_nas.spaces import CellArchitecture, CellSpace, load_architecture
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.controls import COMPARED, FILE, RESULT_LABEL
from robust_nas.workflows.search_job import SearchResult, caption_of

VERDICT = "verdict.json"
SCHEMA_VERSION = 1
CONTROLS = 3  # that the printed command asks for
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
    space, folder = config.space.load(), found.folder
    folders = seed_folders(found)
    seeds = [_seed_evidence(folders[seed], seed) for seed in folders]
    made = folder if verb == "search" else folder.parent
    verdict = judge(
        SearchEvidence(
            strategy=config.search,
            space=space,
            classes=found.record.get("classes", 0),
            seeds=seeds,
            controls=_compared(
                found.architecture, controls, controls / RESULT_LABEL if model is None else model
            ),
            add_controls=f"robust-nas {verb} --resume {shlex.quote(str(made))} search.controls={CONTROLS}",
        )
    )
    tree = {"schema_version": SCHEMA_VERSION, **verdict.to_dict()}
    path = folder / VERDICT
    if is_writable(folder):
        if not path.is_file() or _read(path) != tree:
            write_json(path, tree)
        for evidence in seeds:
            stem = folders[evidence.seed] / "figures" / "cells"
            if _shown_verdict(stem) != tree["status"]:
                with figures.optional("cells"):
                    _draw(config, space, evidence, stem, tree["status"])
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


def _seed_evidence(folder: Path, seed: int) -> SeedEvidence:
    return SeedEvidence(
        seed=seed,
        architecture=cast(CellArchitecture, load_architecture(folder / "architecture.yaml")),
        records=read_lines(folder / METRICS),
        result=read_json(folder / RESULT),
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
    """Return the word with which the cells are drawn; None where they are not, or without one."""
    path = stem.with_suffix(".csv")
    if not (path.is_file() and stem.with_suffix(".png").is_file()):
        return None
    with path.open(encoding="utf-8", newline="") as file:
        return next((row.get("verdict") for row in csv.DictReader(file)), None)


def _draw(config: RunConfig, space: CellSpace, evidence: SeedEvidence, stem: Path, word: str) -> None:
    """Draw the cells of one seed with their weights and the word."""
    folder = stem.parent.parent
    alphas = folder / "alphas.json"
    weights = read_json(alphas)["softmax"] if alphas.is_file() else {}
    dataset = read_environment(folder).get("dataset", "unknown data")
    cells, concat, inputs = evidence.architecture.drawing()
    figures.draw_cells(
        cells,
        stem,
        concat=concat,
        inputs=inputs,
        caption=caption_of(config, dataset, evidence.result.get("images"), evidence.seed),
        weights=edge_labels(space, evidence.architecture, weights, edge_noise(evidence.records)),
        verdict=word,
    )


def edge_labels(
    space: CellSpace,
    architecture: CellArchitecture,
    weights: Mapping[str, list[list[float]]],
    noise: Mapping[str, list[list[float]]],
) -> dict[str, list[list[figures.Weight]]] | None:
    """Return weight and noise of every edge of an architecture per kind and node; None without weights."""
    if not weights:
        return None

    def weight(kind: str, node: int, operation: str, source: int) -> figures.Weight:
        edge, column = space.edges.index((node, source)), space.operations.index(operation)
        own = noise[kind][edge][column] if kind in noise else None
        return figures.Weight(weights[kind][edge][column], own)

    return {
        cell.kind: [
            [weight(cell.kind, number, operation, source) for operation, source in node]
            for number, node in enumerate(cell.nodes)
        ]
        for cell in architecture.genotype
    }
