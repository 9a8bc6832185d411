"""A search as a job: from a config to `architecture.yaml`, once or for several seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from robust_nas import figures
from robust_nas.config import Count, Options
from robust_nas.data import DataOptions
from robust_nas.distributed import Ranks, joined, refuse_several
from robust_nas.errors import ArchitectureError, ConfigError
from robust_nas.runs import Mode, Progress, Run, read_json, silent, write_json
from robust_nas.search.options import NNI, Strategy, SupernetOptions
from robust_nas.spaces import (
    Architecture,
    CellArchitecture,
    CellSpace,
    Size,
    count,
    has_cells,
    load_architecture,
)
from robust_nas.workflows.config import RESULTS, NetworkSize, RunConfig
from robust_nas.workflows.context import (
    JobContext,
    context_unless_finished,
    distribute,
    load_context,
    open_run,
    refuse_precision,
    session,
)

if TYPE_CHECKING:
    from robust_nas.nets import Supernet
    from robust_nas.search.loop import SearchOutcome


@dataclass(frozen=True)
class SearchResult:
    """A finished search: where it is, what it found, and the record of `result.json`."""

    folder: Path
    architecture: CellArchitecture
    record: dict[str, Any]


def run_search(
    config: RunConfig,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    seeds: int = 1,
    progress: Progress = silent,
    context: JobContext | None = None,
) -> SearchResult:
    """Searches an architecture; the folder (default `results/<name>-search`) gets `architecture.yaml` and figures.

    With `seeds` > 1 the search is repeated with seeds `seed`, `seed + 1`, ... in subfolders; the architecture with the
    lowest final adversarial loss of its alphas is the result, and `result.json` reports the spread.
    """
    folder = Path(out) if out else RESULTS / f"{config.name}-search"
    if seeds < 1:
        raise ConfigError(f"seeds: got {seeds}; at least 1 is needed")
    if isinstance(config.search, NNI):
        refuse_several("search with a strategy of NNI")
    if seeds > 1:
        return _repeat_search(config, folder, mode, seeds, progress, context)
    context = context or context_unless_finished(config, folder, mode)
    if context is not None:
        refuse_precision(config.search.precision, context.device)
    job = SearchJob.of(config)
    with joined() as ranks, open_run(ranks, folder, job, mode, recipe=config) as run:
        if not ranks.run_on_all(lambda: run.finished):
            _search_once(run, config, job.space, context or load_context(config), progress, ranks)
        return ranks.run_on_all(lambda: _result(folder))


def _result(folder: Path) -> SearchResult:
    path = folder / "architecture.yaml"
    return SearchResult(
        folder, cast(CellArchitecture, load_architecture(path)), read_json(folder / "result.json")
    )


class SearchJob(Options):
    """What the result of a search depends on: sections of the run config, and the space as its file had it."""

    name: str
    seed: int
    data: DataOptions
    space: CellSpace
    supernet: SupernetOptions
    search: Strategy
    network: NetworkSize
    batch_norm: str

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """Return the record of the search that a run config asks for."""
        shared = {key: getattr(config, key) for key in cls.model_fields if key != "space"}
        return cls(space=config.space.load(), **shared)


def _search_once(
    run: Run, config: RunConfig, space: CellSpace, context: JobContext, progress: Progress, ranks: Ranks
) -> None:
    with session(run, context, ranks):
        outcome = _found(run, config, space, context, progress, ranks)
    ranks.run_on_all(lambda: _write(run, config, space, outcome, context))


def _write(
    run: Run, config: RunConfig, space: CellSpace, outcome: SearchOutcome, context: JobContext
) -> None:
    """Write what a search found."""
    from robust_nas.search.loop import collapsed

    options, dataset, images = config.search, context.dataset, len(context.images)
    size = Size(
        cells=config.network.cells or space.network.cells,
        channels=config.network.channels or space.network.channels,
    )
    found = outcome.architecture.resized(size.cells, size.channels)
    cost = count(found, dataset.shape, dataset.classes)
    run.write("architecture.yaml", found.to_yaml())
    alphas = {"operations": list(space.operations), "softmax": outcome.mixing}
    if outcome.sources is not None:
        alphas["sources"] = outcome.sources
    write_json(run.folder / "alphas.json", alphas)
    records = run.records()
    stage2 = next((record["step"] for record in records if record["stage"] == 2), None)
    attack = f"{options.attack.name}, {options.attack.norm} eps {options.attack.eps:.4g}, seed {config.seed}"
    caption = f"{config.name}: search on {dataset.name}, {images} images, {attack}"
    figures.plot_search(records, run.folder / "figures" / "search", stage2_from_step=stage2, caption=caption)
    draw_architecture(found, run.folder / "figures" / "cells", caption=caption)
    run.finish(
        {
            "seed": config.seed,
            "params": cost.params,
            "macs": cost.macs,
            "seconds": round(outcome.seconds, 1),
            "loss_natural": _mean_of_last_epoch(records, "loss_natural"),
            "loss_adversarial": _mean_of_last_epoch(records, "loss_adversarial"),
            "entropy": outcome.last.get("entropy"),
            "skips": {cell.kind: cell.operations().count("skip_connect") for cell in found.genotype},
            "warnings": collapsed(found),
        },
        ["architecture.yaml", "alphas.json", "figures/cells.png", "figures/search.png"],
    )


def build_supernet(config: RunConfig, space: CellSpace, context: JobContext) -> Supernet:
    """Return the supernet of a search before its first step, on the CPU."""
    from robust_nas.nets import Supernet

    options, dataset = config.search, context.dataset
    mean, std = context.normalisation
    return Supernet(
        space,
        dataset.classes,
        dataset.shape[0],
        options.channels or space.search.channels,
        options.cells or space.search.cells,
        mean=mean,
        std=std,
        seed=config.seed,
        execution=config.supernet.execution,
    )


def _found(
    run: Run, config: RunConfig, space: CellSpace, context: JobContext, progress: Progress, ranks: Ranks
) -> SearchOutcome:
    """Return what the config's strategy finds on the training images."""
    dataset, device, images, options = context.dataset, context.device, context.images, config.search
    mean, std = context.normalisation
    augmentation = options.augment or config.data.augment
    if isinstance(options, NNI):
        from robust_nas.integrations import nni

        return nni.search(
            run,
            space,
            images.to(device),
            options,
            augmentation,
            classes=dataset.classes,
            mean=mean,
            std=std,
            name=config.name,
            seed=config.seed,
            checkpoint_seconds=config.checkpoint_seconds,
            progress=progress,
        )
    from robust_nas.search.loop import search

    supernet = build_supernet(config, space, context).to(device)
    distribute(supernet, config.batch_norm, ranks)
    return search(
        run,
        supernet,
        images.to(device),
        options,
        augmentation,
        name=config.name,
        seed=config.seed,
        checkpoint_seconds=config.checkpoint_seconds,
        progress=progress,
        ranks=ranks,
    )


def _mean_of_last_epoch(records: list[dict[str, Any]], key: str) -> float | None:
    last = [record[key] for record in records if record["epoch"] == records[-1]["epoch"]]
    return None if None in last else sum(last) / len(last)


def _repeat_search(
    config: RunConfig,
    folder: Path,
    mode: Mode,
    seeds: int,
    progress: Progress,
    context: JobContext | None,
) -> SearchResult:
    """Searches once per seed in subfolders `seed-<n>` and writes the best one and the spread."""
    from robust_nas.search.spread import spread

    context = context or context_unless_finished(config, folder, mode)
    if context is not None:
        refuse_precision(config.search.precision, context.device)
    job = SeedsJob(search=SearchJob.of(config), seeds=seeds)
    with joined() as ranks, open_run(ranks, folder, job, mode, recipe=config) as run:
        results = []
        for seed in range(config.seed, config.seed + seeds):
            changed = config.model_copy(update={"seed": seed})
            inner: Mode = "resume" if mode == "resume" else "new"
            own = None if context is None else context.of_seed(seed)
            results.append(
                run_search(changed, folder / f"seed-{seed}", mode=inner, progress=progress, context=own)
            )
        best = min(results, key=lambda result: float(result.record["loss_adversarial"]))
        record = {
            **best.record,
            "chosen_seed": best.record["seed"],
            **spread([result.record for result in results], [result.architecture for result in results]),
        }

        def write() -> SearchResult:
            run.write("architecture.yaml", best.architecture.to_yaml())
            run.finish(record, ["architecture.yaml"])
            return SearchResult(folder, best.architecture, read_json(folder / "result.json"))

        return ranks.run_on_all(write)


class SeedsJob(Options):
    """What the result of a repeated search depends on."""

    search: SearchJob
    seeds: Count


def draw_architecture(architecture: Architecture, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
    """Draws the cells of an architecture as PNG and SVG (and their edges as CSV); returns the paths.

    Raises `ArchitectureError` for a family without cells.
    """
    if not has_cells(architecture):
        raise ArchitectureError(
            f"{architecture.name}: {architecture.called} has no cells to draw; name a cell architecture, such as arnas"
        )
    cells, concat, inputs = architecture.drawing()
    return figures.draw_cells(cells, stem, concat=concat, inputs=inputs, caption=caption)
