"""A ranking as a job: from candidates and images to scores of untrained, or shortly trained, architectures.

The folder gets `ranking.csv` (every candidate, best first), `architecture.yaml` (the best one), a figure, and
`result.json`. Networks of a table have a truth, which is one of its columns; `agreement.csv` then says how well the
score, params and MACs order them by it.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field

from robust_nas import figures
from robust_nas.choices import changed
from robust_nas.config import (
    Options,
    check,
    existing_file,
    read_yaml,
    to_dict,
    tree_hash,
)
from robust_nas.data import DataOptions
from robust_nas.records import RESULT, Shape, read_json
from robust_nas.run_folder import RECIPE, Mode, Progress, Run, silent
from robust_nas.search import RANKINGS, RankingContext, RankingMethod
from robust_nas.search.ranking.method import Columns
from robust_nas.search.ranking.ranks import rank_shares, rank_within_band
from robust_nas.spaces import CellArchitecture, CellSpace, count
from robust_nas.statistics import agreements
from robust_nas.workflows.benchmark import CONTROL, ScoreBenchmark
from robust_nas.workflows.context import JobContext, context_unless_finished, load_context, session
from robust_nas.workflows.places import of_config
from robust_nas.workflows.rank_candidates import Candidates, KnownTruth, RankConfig, read_candidates
from robust_nas.workflows.report.at_end import reporting

TABLE, AGREEMENT = "ranking.csv", "agreement.csv"


class RankJob(Options):
    """What a ranking depends on. The candidates are known by a digest; `recipe.yaml` says where they are from."""

    seed: int
    data: DataOptions
    method: Annotated[RankingMethod, RANKINGS.field()]
    band: float
    space: CellSpace | None
    number: int
    candidates: str
    truth: str | None = Field(default=None, exclude_if=lambda truth: truth is None)  # a digest of the numbers

    @classmethod
    def of(cls, config: RankConfig, chosen: Candidates) -> Self:
        """Return the record of the ranking that a config asks for."""
        digest = tree_hash({"architectures": [to_dict(one) for one in chosen.architectures]})
        shared = {key: getattr(config, key) for key in ("seed", "data", "method", "band")}
        truth = None if chosen.truth is None else chosen.truth.digest()
        number = len(chosen.architectures)
        return cls(space=chosen.space, number=number, candidates=digest, truth=truth, **shared)


@dataclass(frozen=True)
class Ranking:
    """A finished ranking: where it is, and the record of `result.json`, whose `ranking` has a row a candidate.

    Of a table it has `agreement`, as `robust-nas benchmark scores --json` prints it.
    """

    folder: Path
    record: dict[str, Any]


def load_ranking(
    candidates: Sequence[str],
    method: str | None = None,
    *,
    sample: int | None = None,
    seed: int | None = None,
    space: str | None = None,
    column: str | None = None,
    overrides: Sequence[str] = (),
) -> RankConfig:
    """Return the config of a ranking, or that of its folder; with `a.b=c` overrides applied.

    `candidates` are a search space (a name or a file), or architectures: names, files, folders, strings of
    NAS-Bench-201, and text files of published cells; or the file of a table, with the `column` that is the truth.
    Raises `ConfigError` that names the key, the value, and what is allowed.
    """
    stored = existing_file(Path(candidates[0]) / RECIPE) if len(candidates) == 1 else None
    given: dict[str, Any] = {
        "method": None if method is None else {"name": method},
        "sample": sample,
        "seed": seed,
        "space": None if space is None else {"name": space},
        "truth": None if column is None else {"column": column},
    }
    given = {key: value for key, value in given.items() if value is not None}
    if stored is not None and "candidates" in read_yaml(stored):
        tree, source = {**read_yaml(stored), **given}, str(stored)
    else:
        tree = {"name": _name(candidates), "data": {}, "candidates": list(candidates), **given}
        source = "rank"
    return check(RankConfig, changed(RankConfig, tree, overrides), source, overrides=overrides)


def _name(candidates: Sequence[str]) -> str:
    """Return what a ranking is called by default: as its space or file, where it has one of a plain name."""
    stem = Path(candidates[0]).stem if len(candidates) == 1 else ""
    plain = stem.replace("_", "").replace("-", "").isalnum() and len(stem) <= 60 and stem[0].isalnum()
    return stem if plain else "architectures"


def rank(
    config: RankConfig,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
    context: JobContext | None = None,
) -> Ranking:
    """Rank the candidates of a config by its method; the folder is by default `results/<name>-rank`."""
    folder = of_config("rank", out, config.name)
    chosen = read_candidates(config)
    job = RankJob.of(config, chosen)
    context = context_unless_finished(config, folder, mode, context)
    with reporting(folder), Run(folder, job, mode, recipe=config) as run:
        if not run.complete:
            context = context or load_context(config)
            with session(run, context):
                _rank_once(run, config, chosen, context, progress)
    row = {"rank": int, "name": str, "params": int, "macs": int}
    shape: Shape = {"seed": int, "method": str, "number": int, "ranking": [row, ...]}
    return Ranking(folder, read_json(folder / RESULT, shape))


def _rank_once(
    run: Run, config: RankConfig, chosen: Candidates, context: JobContext, progress: Progress
) -> None:
    mean, std = context.normalisation
    method, began = config.method, time.process_time()
    columns = method.score(
        chosen.architectures,
        RankingContext(
            run=run,
            images=context.images.to(context.device),
            classes=context.dataset.classes,
            mean=mean,
            std=std,
            seed=config.seed,
            space=chosen.space,
            augmentation=config.data.augment,
            checkpoint_seconds=config.checkpoint_seconds,
            progress=progress,
        ),
    )
    dataset = context.dataset
    if chosen.truth is not None:
        columns = {**columns, "truth": list[float | None](chosen.truth.values)}
    rows = ranked_rows(chosen.architectures, columns, dataset.shape, dataset.classes, config.band)
    run.write(TABLE, to_csv(rows))
    artifacts = [TABLE, "architecture.yaml"]
    record: dict[str, Any] = {"ranking": rows}
    if chosen.truth is not None:
        agreement = agreement_of(rows, chosen.truth, progress)
        run.write(AGREEMENT, agreement.to_csv())
        artifacts.append(AGREEMENT)
        record["agreement"] = agreement.to_dict()
    best = max(zip(columns["score"], chosen.architectures, strict=True), key=lambda pair: _sortable(pair[0]))
    run.write("architecture.yaml", best[1].to_yaml())
    about = (
        f"{config.name}: {len(rows)} candidates by {method.label}, {dataset.name}, "
        f"{len(context.images)} images, seed {config.seed}"
    )
    drawn = figures.draw_figures("ranking", record, run.folder / "figures", about=about)
    figures.draw_own("ranking", record, run.folder / "figures", about=about, figures=config.figures)
    run.finish(
        {
            "seed": config.seed,
            "method": method.label,
            "dataset": dataset.name,
            "number": len(rows),
            "unscored": sum(row["score"] is None for row in rows),
            "cpu_seconds_this_call": round(time.process_time() - began, 1),
            **record,
        },
        artifacts,
        figures=[one.stem for one in drawn],
    )


def ranked_rows(
    architectures: Sequence[CellArchitecture],
    columns: Columns,
    input_shape: tuple[int, int, int],
    classes: int,
    band: float,
) -> list[dict[str, Any]]:
    """Return a row a candidate, best first, with its parameters and MACs; one without a score comes last."""
    costs = [count(one, input_shape, classes) for one in architectures]
    in_band = rank_within_band(columns["score"], [cost.params for cost in costs], band)
    rows = []
    for index, (one, cost) in enumerate(zip(architectures, costs, strict=True)):
        measured = {key: _finite(values[index]) for key, values in columns.items()}
        own: dict[str, Any] = {"rank": 0, "name": one.name, "params": cost.params, "macs": cost.macs}
        rows.append({**own, "score": measured.pop("score"), "rank_in_band": in_band[index], **measured})
    rows.sort(key=lambda row: -_sortable(row["score"]))
    return [{**row, "rank": number} for number, row in enumerate(rows, start=1)]


def agreement_of(
    rows: Sequence[Mapping[str, Any]], truth: KnownTruth, progress: Progress = silent
) -> ScoreBenchmark:
    """Return how well params, MACs and score order the rows by the truth; one without a score counts as the lowest."""
    sign = 1 if truth.higher_is_better else -1
    scores = {key: np.array([row[key] for row in rows], dtype=float) for key in (CONTROL, "macs")}
    scores["score"] = rank_shares([row["score"] for row in rows])
    found = agreements(
        scores,
        [sign * row["truth"] for row in rows],
        CONTROL,
        report=lambda done: progress("agreement", done, len(scores)),
    )
    return ScoreBenchmark(truth.table, truth.column, len(rows), truth.left_out, found)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as CSV text; an absent number is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _sortable(value: float | None) -> float:
    return -math.inf if _finite(value) is None else float(value or 0.0)
