"""A search as a job: from a config to `architecture.yaml`, once or for several seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_nas import figures
from robust_nas.config import Count, Options, check, read_yaml
from robust_nas.distributed import Ranks, joined, refuse_several
from robust_nas.errors import ArchitectureError, ConfigError
from robust_nas.runs import CHECKPOINT, Mode, Progress, Run, read_json, silent, write_json
from robust_nas.search import SearchContext, SearchOutcome, Trained, run_strategy
from robust_nas.spaces import Architecture, CellArchitecture, CellSpace, Size, count
from robust_nas.training.options import Training
from robust_nas.workflows.config import RESULTS, RunConfig
from robust_nas.workflows.material import (
    Material,
    needed,
    normalisation,
    open_run,
    prepare,
    refuse_precision,
    session,
    training_split,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from robust_nas.data import Dataset, Images


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
    material: Material | None = None,
) -> SearchResult:
    """Searches an architecture; the folder (default `results/<name>-search`) gets `architecture.yaml` and figures.

    With `seeds` > 1 the search is repeated with seeds `seed`, `seed + 1`, ... in subfolders; the result is the
    architecture that is best by the strategy's criterion, and `result.json` reports the spread.
    """
    folder = Path(out) if out else RESULTS / f"{config.name}-search"
    if seeds < 1:
        raise ConfigError(f"seeds: got {seeds}; at least 1 is needed")
    if not config.search.distributed:
        refuse_several(f"search with the strategy {config.search.label}")
    if seeds > 1:
        return _repeat_search(config, folder, mode, seeds, progress, material)
    material = material or needed(config, folder, mode)
    if material is not None:
        refuse_precision(config.search.precision, material.device)
    job = SearchJob(config=config, space=config.space.load())
    with joined() as ranks, open_run(ranks, folder, job, mode) as run:
        if not ranks.run_on_all(lambda: run.finished):
            _search_once(run, config, material or prepare(config), progress, ranks)
        return ranks.run_on_all(lambda: _result(folder))


def _result(folder: Path) -> SearchResult:
    path = folder / "architecture.yaml"
    found = check(CellArchitecture, read_yaml(path), str(path), ArchitectureError)
    return SearchResult(folder, found, read_json(folder / "result.json"))


class SearchJob(Options):
    """What a search was made from: the run config, and the space as its file had it."""

    config: RunConfig
    space: CellSpace


def _search_once(run: Run, config: RunConfig, material: Material, progress: Progress, ranks: Ranks) -> None:
    with session(run, config, material, ranks):
        images, _ = training_split(config, material.dataset)
        outcome = _found(run, config, material, images, progress, ranks)
    ranks.run_on_all(lambda: _write(run, config, outcome, material.dataset, len(images)))


def _write(run: Run, config: RunConfig, outcome: SearchOutcome, dataset: Dataset, images: int) -> None:
    """Write what a search on so many images found."""
    from robust_nas.search.spread import collapsed, skips

    space, strategy = config.space.load(), config.search
    size = _network_size(config, space)
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
    caption = (
        f"{config.name}: search on {dataset.name}, {images} images, {strategy.describe()}, seed {config.seed}"
    )
    plot = getattr(figures, f"plot_{strategy.figure.replace('-', '_')}")
    plot(records, run.folder / "figures" / "search", caption=caption, **strategy.figure_options(records))
    draw_architecture(found, run.folder / "figures" / "cells", caption=caption)
    run.finish(
        {
            "seed": config.seed,
            "params": cost.params,
            "macs": cost.macs,
            "seconds": round(outcome.seconds, 1),
            **strategy.result(records),
            "skips": skips(found),
            "warnings": collapsed(found),
        },
        [*artifacts, "figures/cells.png", "figures/search.png"],
    )


def _network_size(config: RunConfig, space: CellSpace) -> Size:
    """Return depth and width of the final network."""
    return Size(
        cells=config.network.cells or space.network.cells,
        channels=config.network.channels or space.network.channels,
    )


def build_supernet(config: RunConfig, space: CellSpace, dataset: Dataset) -> nn.Module:
    """Return the supernet of a one-shot search before its first step, on the CPU."""
    mean, std = normalisation(config, dataset)
    supernet: nn.Module = config.search.build_supernet(  # type: ignore[attr-defined] # of a one-shot strategy
        space,
        classes=dataset.classes,
        mean=mean,
        std=std,
        seed=config.seed,
        execution=config.supernet.execution,
    )
    return supernet


def _found(
    run: Run, config: RunConfig, material: Material, images: Images, progress: Progress, ranks: Ranks
) -> SearchOutcome:
    """Return what the config's strategy finds on `images`."""
    dataset, space = material.dataset, config.space.load()
    mean, std = normalisation(config, dataset)
    context = SearchContext(
        run=run,
        space=space,
        images=images.to(material.device),
        classes=dataset.classes,
        mean=mean,
        std=std,
        name=config.name,
        seed=config.seed,
        augmentation=config.data.augment,
        network=_network_size(config, space),
        execution=config.supernet.execution,
        checkpoint_seconds=config.checkpoint_seconds,
        progress=progress,
        ranks=ranks,
        synchronise=config.batch_norm == "synchronised",
        train=CandidateTraining(run.folder, config, dataset.classes, mean, std, material.device),
    )
    return run_strategy(config.search, context)


class CandidateJob(Options):
    """What a candidate was trained from; its folder lies in that of its search, whose config holds the rest."""

    architecture: CellArchitecture
    training: Training


@dataclass(frozen=True)
class CandidateTraining:
    """Trains the candidates of a sampled search by the run's recipe, each in a run folder inside the search's."""

    folder: Path
    config: RunConfig
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device

    def __call__(
        self, architecture: CellArchitecture, images: Images, validation: Images, epochs: int
    ) -> Trained:
        """Return the accuracies on `validation` after the last epoch; a candidate is trained once."""
        from robust_nas.nets import build_network
        from robust_nas.training.loop import train

        config = self.config
        options = config.training.model_copy(update={"epochs": epochs, "validate_from": epochs - 1})
        job = CandidateJob(architecture=architecture, training=options)
        folder = self.folder / "candidates" / architecture.name
        with Run(folder, job, "resume") as run:
            if not run.finished:
                channels, height, width = images.pixels.shape[1:]
                network = build_network(
                    architecture,
                    input_shape=(channels, height, width),
                    classes=self.classes,
                    mean=self.mean,
                    std=self.std,
                    auxiliary=options.auxiliary_weight > 0,
                    seed=config.seed,
                ).to(self.device)
                found = train(
                    run,
                    network,
                    images,
                    validation,
                    options,
                    config.data.augment,
                    seed=config.seed,
                    checkpoint_seconds=config.checkpoint_seconds,
                )
                run.finish({"clean": found.clean, "robust": found.robust}, [])
                (folder / CHECKPOINT).unlink()
            result = read_json(folder / "result.json")
        return Trained(result["clean"], result["robust"])


def _repeat_search(
    config: RunConfig,
    folder: Path,
    mode: Mode,
    seeds: int,
    progress: Progress,
    material: Material | None,
) -> SearchResult:
    """Searches once per seed in subfolders `seed-<n>` and writes the best one and the spread."""
    from robust_nas.search.spread import spread

    material = material or needed(config, folder, mode)
    if material is not None:
        refuse_precision(config.search.precision, material.device)
    with joined() as ranks, open_run(ranks, folder, SeedsJob(config=config, seeds=seeds), mode) as run:
        results = []
        for seed in range(config.seed, config.seed + seeds):
            changed = config.model_copy(update={"seed": seed})
            inner: Mode = "resume" if mode == "resume" else "new"
            # A limited training set is another choice for every seed.
            shared = material if config.data.limit is None else None
            results.append(
                run_search(changed, folder / f"seed-{seed}", mode=inner, progress=progress, material=shared)
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
            return SearchResult(folder, best.architecture, read_json(folder / "result.json"))

        return ranks.run_on_all(write)


class SeedsJob(Options):
    """What a repeated search was made from."""

    config: RunConfig
    seeds: Count


def draw_architecture(architecture: Architecture, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
    """Draws the cells of an architecture as PNG and SVG (and their edges as CSV); returns the paths.

    Raises `ArchitectureError` for a residual network or an MLP.
    """
    if not isinstance(architecture, CellArchitecture):
        raise ArchitectureError(
            f"{architecture.name}: {architecture.called} has no cells to draw; name a cell architecture, such as arnas"
        )
    cells = {
        cell.kind: [[(edge.operation, edge.source) for edge in node] for node in cell.nodes]
        for cell in architecture.genotype
    }
    concat = {cell.kind: cell.concat for cell in architecture.genotype}
    return figures.draw_cells(cells, stem, concat=concat, caption=caption)
