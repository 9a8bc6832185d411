"""A search as a job: from a config to `architecture.yaml`, once or for several seeds."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from robust_nas import figures
from robust_nas.distributed import ALONE, Ranks, joined, refuse_several
from robust_nas.errors import ArchitectureError, ConfigError
from robust_nas.execution import Engine
from robust_nas.records import RESULT, Shape, read_environment, read_json
from robust_nas.run_folder import Mode, Progress, Run, silent, write_json
from robust_nas.search import (
    Criterion,
    SearchOutcome,
    run_strategy,
)
from robust_nas.search.strategy import counted
from robust_nas.spaces import (
    Architecture,
    CellArchitecture,
    CellSpace,
    count,
    has_cells,
    load_architecture,
)
from robust_nas.workflows.candidate_measures import refuse_unmeasurable
from robust_nas.workflows.candidate_tasks import CANDIDATES, CandidateTasks, context_of_search, network_size
from robust_nas.workflows.config import RunConfig, doubts
from robust_nas.workflows.context import (
    JobContext,
    context_unless_finished,
    load_context,
    open_run,
    refuse_attacks,
    refuse_attacks_in,
    refuse_loss,
    refuse_precision,
    refuse_recipe,
    session,
)
from robust_nas.workflows.controls import CONTROLS, compare_with_controls
from robust_nas.workflows.own_data import with_own_data
from robust_nas.workflows.places import of_config
from robust_nas.workflows.report.at_end import reporting
from robust_nas.workflows.search_job import (
    SearchJob,
    SearchResult,
    SeedsJob,
    caption_of,
    refuse_other_kind,
    seeds_asked,
)
from robust_nas.workflows.search_verdict import judge_search

if TYPE_CHECKING:
    from torch import nn


def run_search(
    config: RunConfig,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    seeds: int | None = None,
    progress: Progress = silent,
    context: JobContext | None = None,
    engine: Engine | None = None,
    data: Any = None,
    test: Any = None,
) -> SearchResult:
    """Search an architecture; the folder (default `results/<name>-search`) gets `architecture.yaml` and figures.

    With `seeds` > 1 (default: `search.seeds`; of a search that is continued, its own number) the search is repeated
    with seeds `seed`, `seed + 1`, ... in subfolders; the result is the architecture that is best by the strategy's
    criterion, and `result.json` reports the spread.

    With an `engine` the candidates of a sampled strategy are evaluated by its workers, a batch at a time; without one
    in this process, one by one. Raises `ConfigError` for an engine that the strategy cannot use.

    With `search.controls` or `search.finalists` the result is then trained and evaluated next to other networks
    (`workflows/controls.py`). It ends with the verdict on the search (`workflows/search_verdict.py`).

    `data` are images in the place of those that the config names, in any form of `robust_nas.as_dataset`; `test` is
    needed where controls or finalists are evaluated. They stay in this process: an engine is refused with them.
    """
    config, context = with_own_data(config, context, data, test)
    if data is not None and engine is not None:
        raise ConfigError(
            f"data: was given with the engine {engine.name}, whose workers cannot see it; leave the engine out, or "
            "store the images and name them by config.data"
        )
    if config.search.followed:
        refuse_several("search.controls")
    folder = _folder(config, out)
    with reporting(folder):
        found = find_architecture(
            config, folder, mode=mode, seeds=seeds, progress=progress, context=context, engine=engine
        )
        controls = found.folder / CONTROLS
        if config.search.followed:
            tree = compare_with_controls(config, found, controls, progress=progress, context=context)
            found = replace(found, controls=tree)
        with joined() as ranks:
            return replace(found, verdict=ranks.run_on_all(lambda: judge_search(config, found, controls)))


def _folder(config: RunConfig, out: Path | None) -> Path:
    return of_config("search", out, config.name)


def find_architecture(
    config: RunConfig,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    seeds: int | None = None,
    progress: Progress = silent,
    context: JobContext | None = None,
    engine: Engine | None = None,
) -> SearchResult:
    """Do the same without controls, finalists and verdict."""
    folder = _folder(config, out)
    seeds = seeds_asked(config, folder, mode, seeds)
    if seeds < 1:
        raise ConfigError(f"seeds: got {seeds}; at least 1 is needed")
    if not config.search.distributed:
        refuse_several(f"search with the strategy {config.search.label}")
    if engine is not None:
        _refuse_engine(config, engine)
    if mode == "resume":
        refuse_other_kind(folder, seeds)
    if seeds > 1:
        return _repeat_search(config, folder, mode, seeds, progress, context, engine)
    context = context_unless_finished(config, folder, mode, context)
    if context is not None:
        refuse_unfit(config, context)
    job = SearchJob.of(config)
    with joined() as ranks, open_run(ranks, folder, job, mode, recipe=config) as run:
        if not ranks.run_on_all(lambda: run.complete):
            _search_once(run, config, job.space, context or load_context(config), progress, ranks, engine)
        ranks.run_on_all(lambda: _draw_own(run, config))
        return ranks.run_on_all(lambda: _result(folder, config.search.criterion))


def refuse_unfit(config: RunConfig, context: JobContext) -> None:
    """Raise `ConfigError` for what the device lacks, too few images, and a recipe that no candidate can have."""
    refuse_precision(config.search.own_precision, context.device)
    if config.search.kind == "one-shot":  # half of the images for the weights, half for the alphas
        ALONE.refuse_small(len(context.images) // 2, "search.batch_size")
    refuse_attacks_in(config.search, "search", context)
    if config.search.weight_loss is not None:
        refuse_loss(config.search.weight_loss, "search.weights.loss", context)
    if config.search.trains:
        refuse_recipe(config.training, config.space.load(), context, config.network.alone)
    if config.search.followed:
        refuse_recipe(config.training, config.space.load(), context, config.network)
        refuse_attacks(config, context.dataset)
    refuse_unmeasurable(config, context)


def _refuse_engine(config: RunConfig, engine: Engine) -> None:
    """Raise `ConfigError` for an engine of a strategy without candidates, or whose evaluator needs this process."""
    strategy = config.search
    if strategy.kind != "sampled":
        raise ConfigError(
            f"engine {engine.name}: strategy {strategy.label} evaluates no candidates; leave the engine out"
        )
    evaluator = strategy.evaluator  # type: ignore[attr-defined] # of a sampled strategy
    if not evaluator.parallel:
        raise ConfigError(
            f"engine {engine.name}: evaluator {evaluator.label} works in this process alone; leave the engine out"
        )
    engine.refuse_unreachable()


def _result(folder: Path, criterion: Criterion) -> SearchResult:
    one = {
        "seed": int,
        criterion.key: float,
        "params": int,
        "macs": int,
        "skips": {str: int},
        "seconds": float,
    }
    several = {"per_seed": [one, ...], "edges_shared_between_pairs": [float, ...], "chosen_seed": int}
    shape: Shape = {**one, "warnings": [str], **{f"{key}?": each for key, each in several.items()}}
    path = folder / "architecture.yaml"
    return SearchResult(
        folder, cast(CellArchitecture, load_architecture(path)), read_json(folder / RESULT, shape)
    )


def _search_once(
    run: Run,
    config: RunConfig,
    space: CellSpace,
    context: JobContext,
    progress: Progress,
    ranks: Ranks,
    engine: Engine | None,
) -> None:
    """Find an architecture by the config's strategy on the training images, and write it."""
    candidates = run.folder / CANDIDATES
    elsewhere = None
    with session(run, context, ranks), contextlib.ExitStack() as opened:
        if engine is not None:
            run_tasks = opened.enter_context(engine.opened())
            device = engine.device(config.device, context.device.type)
            elsewhere = CandidateTasks(run_tasks, config, candidates, device, context.dataset.checksum)
        search_context = context_of_search(
            run, config, space, context, candidates, progress=progress, ranks=ranks, elsewhere=elsewhere
        )
        outcome = run_strategy(config.search, search_context)
    ranks.run_on_all(lambda: _write(run, config, space, outcome, context))


def _write(
    run: Run, config: RunConfig, space: CellSpace, outcome: SearchOutcome, context: JobContext
) -> None:
    """Write what a search found."""
    from robust_nas.search.spread import collapsed, skips

    strategy, dataset, images = config.search, context.dataset, len(context.images)
    size = network_size(config, space)
    found = outcome.architecture.resized(size.cells, size.channels)
    cost = count(found, dataset.shape, dataset.classes)
    run.write("architecture.yaml", found.to_yaml())
    artifacts = ["architecture.yaml"]
    if outcome.edge_weights is not None:
        alphas = {"operations": list(space.operations), "softmax": outcome.edge_weights}
        if outcome.sources is not None:
            alphas["sources"] = outcome.sources
        write_json(run.folder / "alphas.json", alphas)
        artifacts.append("alphas.json")
    records = run.records()
    caption = caption_of(config, dataset.name, images, config.seed)
    folder = run.folder / "figures"
    record = {strategy.drawn_as: records}
    curves = figures.FIGURES.make(strategy.figure)  # of a plugin, maybe
    figures.draw_figure(curves, record, folder / "search", about=caption)
    with figures.optional("cells"):
        draw_architecture(found, folder / "cells", caption=caption)
    run.finish(
        {
            "seed": config.seed,
            "images": images,
            "params": cost.params,
            "macs": cost.macs,
            "input_shape": list(dataset.shape),
            "classes": dataset.classes,
            "seconds": round(outcome.seconds, 1),
            **strategy.result(counted(records, outcome.stopped)),
            **({} if outcome.stopped is None else {"stopped": outcome.stopped}),
            **({} if outcome.fitness is None else {"fitness": outcome.fitness}),
            "skips": skips(found),
            "warnings": [*doubts(config), *collapsed(found)],
        },
        artifacts,
        figures=("search", "cells"),
    )


def _draw_own(run: Run, config: RunConfig) -> None:
    """Draw the figures that the config asks for, from what a finished search recorded."""
    if config.figures:
        strategy = config.search
        dataset = read_environment(run.folder).get("dataset", "unknown data")
        about = caption_of(config, dataset, None, config.seed)
        record = {strategy.drawn_as: run.records()}
        figures.draw_own("search", record, run.folder / "figures", about=about, figures=config.figures)


def build_supernet(config: RunConfig, space: CellSpace, context: JobContext) -> nn.Module:
    """Return the supernet of a one-shot search before its first step, on the CPU."""
    mean, std = context.normalisation
    supernet: nn.Module = config.search.build_supernet(  # type: ignore[attr-defined] # of a one-shot strategy
        space,
        classes=context.dataset.classes,
        mean=mean,
        std=std,
        seed=config.seed,
        execution=config.supernet.execution,
    )
    return supernet


def _repeat_search(
    config: RunConfig,
    folder: Path,
    mode: Mode,
    seeds: int,
    progress: Progress,
    context: JobContext | None,
    engine: Engine | None,
) -> SearchResult:
    """Searches once per seed in subfolders `seed-<n>` and writes the best one and the spread."""
    from robust_nas.search.spread import spread

    job = SeedsJob(search=SearchJob.of(config), seeds=seeds)
    context = context_unless_finished(config, folder, mode, context, job)
    if context is not None:
        refuse_unfit(config, context)
    with joined() as ranks, open_run(ranks, folder, job, mode, recipe=config) as run:
        seeds = ranks.run_on_all(lambda: cast(SeedsJob, run.config).seeds)
        results = []
        for seed in range(config.seed, config.seed + seeds):
            changed = config.model_copy(update={"seed": seed, "search": config.search.alone})
            inner: Mode = "resume" if mode == "resume" else "new"
            own = None if context is None else context.of_seed(seed)
            results.append(
                find_architecture(
                    changed,
                    folder / f"seed-{seed}",
                    mode=inner,
                    seeds=1,
                    progress=progress,
                    context=own,
                    engine=engine,
                )
            )
        records = [result.record for result in results]
        criterion = config.search.criterion
        best = results[criterion.best(records)]
        record = {
            **best.record,
            "chosen_seed": best.record["seed"],
            **spread(records, [result.architecture for result in results], criterion),
        }

        def write() -> SearchResult:
            run.write("architecture.yaml", best.architecture.to_yaml())
            run.finish(record, ["architecture.yaml"])
            return _result(folder, criterion)

        return ranks.run_on_all(write)


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
