"""A ranking as a job: from candidates and images to scores of untrained, or shortly trained, architectures.

The folder gets `ranking.csv` (every candidate, best first), `architecture.yaml` (the best one), a figure, and
`result.json`.
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
from pydantic import Field, field_validator

from robust_nas import figures
from robust_nas.config import (
    Count,
    NonNegative,
    Options,
    absolute_if_file,
    apply_overrides,
    check,
    existing_file,
    expand_path,
    read_yaml,
    to_dict,
    tree_hash,
)
from robust_nas.data import DataOptions
from robust_nas.errors import ArchitectureError, ConfigError, SearchSpaceError
from robust_nas.records import RESULT, Shape, read_json
from robust_nas.runs import RECIPE, Mode, Progress, Run, silent
from robust_nas.search import RANKINGS, RankingContext, RankingMethod
from robust_nas.search.ranking.method import Columns
from robust_nas.search.ranking.ranks import rank_within_band
from robust_nas.search.tables import load_table
from robust_nas.search.tables.files import HEAD, read_text
from robust_nas.spaces import (
    CellArchitecture,
    CellSpace,
    count,
    has_cells,
    import_all,
    is_shipped,
    load_architecture,
    load_space,
    sample,
    shipped_names,
)
from robust_nas.spaces.encoding import Encoding
from robust_nas.spaces.live_edges import live
from robust_nas.workflows.config import RESULTS, JobConfig, SpaceChoice
from robust_nas.workflows.context import JobContext, context_unless_finished, load_context, session

TABLE = "ranking.csv"
SAMPLED = 100  # architectures of a space where no number is asked for
DRAWS = 3000  # of a space in a row that give nothing new, after which it counts as too small


class RankConfig(JobConfig):
    """Everything that decides a ranking."""

    candidates: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        min_length=1
    )  # a space, or architectures
    sample: Count | None = None  # a random part of them; of a space 100 where it is not given
    space: SpaceChoice | None = None  # of the candidates; None: the shipped one that holds them all
    method: Annotated[RankingMethod, RANKINGS.field(default="zero-cost")] = RANKINGS.make("zero-cost")
    # A candidate is also ranked among those whose parameters are within a factor of 1 + band.
    band: NonNegative = 0.25

    @field_validator("candidates")
    @classmethod
    def _are_absolute(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name if is_shipped("", name) else absolute_if_file(name) for name in names)


class RankJob(Options):
    """What a ranking depends on. The candidates are known by a digest; `recipe.yaml` says where they are from."""

    seed: int
    data: DataOptions
    method: Annotated[RankingMethod, RANKINGS.field()]
    band: float
    space: CellSpace | None
    number: int
    candidates: str

    @classmethod
    def of(cls, config: RankConfig, chosen: Candidates) -> Self:
        """Return the record of the ranking that a config asks for."""
        digest = tree_hash({"architectures": [to_dict(one) for one in chosen.architectures]})
        shared = {key: getattr(config, key) for key in ("seed", "data", "method", "band")}
        return cls(space=chosen.space, number=len(chosen.architectures), candidates=digest, **shared)


@dataclass(frozen=True)
class Candidates:
    """What is ranked, and the space that holds all of it, where one does."""

    architectures: list[CellArchitecture]
    space: CellSpace | None


@dataclass(frozen=True)
class Ranking:
    """A finished ranking: where it is, and the record of `result.json`, whose `ranking` has a row a candidate."""

    folder: Path
    record: dict[str, Any]


def load_ranking(
    candidates: Sequence[str],
    method: str | None = None,
    *,
    sample: int | None = None,
    seed: int | None = None,
    space: str | None = None,
    overrides: Sequence[str] = (),
) -> RankConfig:
    """Return the config of a ranking, or that of its folder; with `a.b=c` overrides applied.

    `candidates` are a search space (a name or a file), or architectures: names, files, folders, strings of
    NAS-Bench-201, text files of published cells, and tables of trained networks. Raises `ConfigError` that names the
    key, the value, and what is allowed.
    """
    stored = existing_file(Path(candidates[0]) / RECIPE) if len(candidates) == 1 else None
    given: dict[str, Any] = {
        "method": None if method is None else {"name": method},
        "sample": sample,
        "seed": seed,
        "space": None if space is None else {"name": space},
    }
    given = {key: value for key, value in given.items() if value is not None}
    if stored is not None and "candidates" in read_yaml(stored):
        tree, source = {**read_yaml(stored), **given}, str(stored)
    else:
        tree = {"name": _name(candidates), "data": {}, "candidates": list(candidates), **given}
        source = "rank"
    return check(RankConfig, apply_overrides(tree, overrides), source, overrides=overrides)


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
    folder = expand_path(out) if out else RESULTS / f"{config.name}-rank"
    chosen = read_candidates(config)
    job = RankJob.of(config, chosen)
    context = context_unless_finished(config, folder, mode, context)
    with Run(folder, job, mode, recipe=config) as run:
        if not run.complete:
            context = context or load_context(config)
            with session(run, context):
                _rank_once(run, config, chosen, context, progress)
    row = {"rank": int, "name": str, "params": int, "macs": int}
    shape: Shape = {"seed": int, "method": str, "number": int, "ranking": [row, ...]}
    return Ranking(folder, read_json(folder / RESULT, shape))


def read_candidates(config: RankConfig) -> Candidates:
    """Return the candidates of a config. Raises `ArchitectureError` or `SearchSpaceError`."""
    names, own = config.candidates, config.space.load() if config.space else None
    if len(names) == 1 and _is_space(names[0]):
        if own is not None:
            raise ConfigError(
                f"space: got {own.name!r}, and the candidates are those of the space {names[0]!r}"
            )
        space = load_space(names[0])
        return Candidates(_drawn(space, config.sample or SAMPLED, config.seed), space)
    architectures = [one for name in names for one in _read(name, own)]
    if config.sample is not None:
        if config.sample > len(architectures):
            raise ConfigError(f"sample: got {config.sample}; there are {len(architectures)} candidates")
        kept = np.random.default_rng(config.seed).permutation(len(architectures))[: config.sample]
        architectures = [architectures[index] for index in sorted(kept)]
    if own is not None:
        for one in architectures:
            if problem := own.mismatch(one):
                raise ArchitectureError(f"{one.name}: is not of the space {own.name}: {problem}")
        return Candidates(architectures, own)
    spaces = (load_space(name) for name in shipped_names())
    holds_all = (space for space in spaces if not any(space.mismatch(one) for one in architectures))
    return Candidates(architectures, next(holds_all, None))


def _is_space(name: str) -> bool:
    if is_shipped("", name):
        return True
    path = existing_file(name)
    return path is not None and path.suffix in (".yaml", ".yml") and "edges_per_node" in read_yaml(path)


def _is_table(path: Path) -> bool:
    """Return whether a file is a table of networks: CSV, anything that is compressed, and JSON with a key ""."""
    return path.suffix in (".csv", ".gz") or (path.suffix == ".json" and '""' in read_text(path, HEAD))


def _drawn(space: CellSpace, number: int, seed: int) -> list[CellArchitecture]:
    """Return distinct random architectures of a space; those that differ in edges that compute nothing are one."""
    genotypes = math.prod(Encoding(space).sizes)
    if number > genotypes:
        raise SearchSpaceError(f"sample: got {number}; {space.name} has {genotypes} genotypes")
    found: dict[str, CellArchitecture] = {}
    draw = last = 0
    while len(found) < number:
        if draw - last == DRAWS:
            raise SearchSpaceError(
                f"sample: got {number}; {draw} draws of {space.name} gave {len(found)} different architectures"
            )
        one = sample(space, int(np.random.default_rng([seed, draw]).integers(2**32)))
        draw += 1
        if (key := tree_hash(live(one).nameless())) not in found:
            found[key], last = one, draw
    return list(found.values())


def _read(name: str, space: CellSpace | None) -> list[CellArchitecture]:
    """Return the architectures that a name, a folder, a string or a file of any form means."""
    path = existing_file(name)
    if path is not None and _is_table(path):
        table = load_table(path)
        return [table.architecture(row) for row in range(len(table))]
    if path is not None and path.suffix not in (".yaml", ".yml", ".json"):
        return import_all(path)
    found = load_architecture(name)
    if not has_cells(found):
        raise ArchitectureError(f"{name}: is {found.called}; rankings take architectures with cells")
    return [found]


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
    rows = ranked_rows(chosen.architectures, columns, dataset.shape, dataset.classes, config.band)
    run.write(TABLE, to_csv(rows))
    best = max(zip(columns["score"], chosen.architectures, strict=True), key=lambda pair: _sortable(pair[0]))
    run.write("architecture.yaml", best[1].to_yaml())
    about = (
        f"{config.name}: {len(rows)} candidates by {method.label}, {dataset.name}, "
        f"{len(context.images)} images, seed {config.seed}"
    )
    drawn = figures.draw_figures("ranking", {"ranking": rows}, run.folder / "figures", about=about)
    own = figures.draw_own
    own("ranking", {"ranking": rows}, run.folder / "figures", about=about, figures=config.figures)
    run.finish(
        {
            "seed": config.seed,
            "method": method.label,
            "dataset": dataset.name,
            "number": len(rows),
            "unscored": sum(row["score"] is None for row in rows),
            "cpu_seconds_this_call": round(time.process_time() - began, 1),
            "ranking": rows,
        },
        [TABLE, "architecture.yaml"],
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
