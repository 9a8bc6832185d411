"""The whole way from one config: search, train, evaluate, export, one after the other, and each as one call.

Every function takes a config (or reads it from the artifact before), writes one run folder, and can be continued with
`mode="resume"`. Torch is imported when a function is called, not before.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_nas import figures
from robust_nas.config import Count, Options
from robust_nas.errors import ConfigError
from robust_nas.preparation import normalisation, prepared, relative
from robust_nas.recipes import RunConfig
from robust_nas.runs import Mode, Progress, Run, environment, read_json, silent, write_json
from robust_nas.spaces import CellArchitecture, Size, count, load_architecture

if TYPE_CHECKING:
    import torch

    from robust_nas.data import Dataset
    from robust_nas.evaluation import Evaluation
    from robust_nas.nets.model import ModelDescription

RESULTS = Path("results")
Warn = Callable[[str], None]


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
) -> SearchResult:
    """Searches an architecture; the folder (default `results/<name>-search`) gets `architecture.yaml` and figures.

    With `seeds` > 1 the search is repeated with seeds `seed`, `seed + 1`, ... in subfolders; the architecture with the
    lowest final adversarial loss of its alphas is the result, and `result.json` reports the spread.
    """
    folder = out or RESULTS / f"{config.name}-search"
    if seeds < 1:
        raise ConfigError(f"seeds: got {seeds}; at least 1 is needed")
    if seeds > 1:
        return _repeat_search(config, folder, mode, seeds, progress)
    with Run(folder, config, mode) as run:
        if not run.finished:
            _search_once(run, config, progress)
        return SearchResult(
            folder, load_architecture(folder / "architecture.yaml"), read_json(folder / "result.json")
        )


def _search_once(run: Run, config: RunConfig, progress: Progress) -> None:
    from robust_nas.nets import Supernet
    from robust_nas.search.loop import collapsed, search

    with prepared(run, config) as (dataset, device):
        space = config.space.load()
        options = config.search
        mean, std = normalisation(config, dataset)
        supernet = Supernet(
            space,
            dataset.classes,
            dataset.shape[0],
            options.channels,
            options.cells,
            mean=mean,
            std=std,
            seed=config.seed,
        ).to(device)
        outcome = search(
            run,
            supernet,
            dataset.train.to(device),
            options,
            config.data.augment,
            name=config.name,
            seed=config.seed,
            checkpoint_seconds=config.checkpoint_seconds,
            progress=progress,
        )
    size = Size(
        cells=config.network.cells or space.network.cells,
        channels=config.network.channels or space.network.channels,
    )
    found = outcome.architecture.resized(size.cells, size.channels)
    cost = count(found, dataset.shape, dataset.classes)
    run.write("architecture.yaml", found.to_yaml())
    write_json(run.folder / "alphas.json", {"operations": list(space.operations), "softmax": outcome.mixing})
    records = run.records()
    stage2 = next((record["step"] for record in records if record["stage"] == 2), None)
    attack = f"{options.attack.name}, {options.attack.norm} eps {options.attack.eps:.4g}, seed {config.seed}"
    caption = f"{config.name}: search on {dataset.name}, {len(dataset.train)} images, {attack}"
    figures.plot_search(records, run.folder / "figures" / "search", stage2_from_step=stage2, caption=caption)
    draw_architecture(found, run.folder / "figures" / "cells", caption=caption)
    run.finish(
        {
            "seed": config.seed,
            "params": cost.params,
            "macs": cost.macs,
            "seconds": round(outcome.seconds, 1),
            "loss_natural": outcome.last.get("loss_natural"),
            "loss_adversarial": _mean_of_last_epoch(records, "loss_adversarial"),
            "entropy": outcome.last.get("entropy"),
            "skips": {cell.kind: cell.operations().count("skip_connect") for cell in found.genotype},
            "warnings": collapsed(found),
        }
    )


def _mean_of_last_epoch(records: list[dict[str, Any]], key: str) -> float:
    last = [float(record[key]) for record in records if record["epoch"] == records[-1]["epoch"]]
    return sum(last) / len(last)


def _repeat_search(
    config: RunConfig, folder: Path, mode: Mode, seeds: int, progress: Progress
) -> SearchResult:
    """Searches once per seed in subfolders `seed-<n>` and writes the best one and the spread."""
    from robust_nas.search.spread import spread

    with Run(folder, SeedsJob(config=config, seeds=seeds), mode) as run:
        results = []
        for seed in range(config.seed, config.seed + seeds):
            changed = config.model_copy(update={"seed": seed})
            inner: Mode = "resume" if mode == "resume" else "new"
            results.append(run_search(changed, folder / f"seed-{seed}", mode=inner, progress=progress))
        best = min(results, key=lambda result: float(result.record["loss_adversarial"]))
        run.write("architecture.yaml", best.architecture.to_yaml())
        run.finish(
            {
                **best.record,
                "chosen_seed": best.record["seed"],
                **spread([result.record for result in results], [result.architecture for result in results]),
            }
        )
        return SearchResult(folder, best.architecture, read_json(folder / "result.json"))


class SeedsJob(Options):
    """What a repeated search was made from."""

    config: RunConfig
    seeds: Count


def train(
    config: RunConfig,
    architecture: CellArchitecture,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
) -> Path:
    """Trains an architecture by the config's recipe; returns the model folder (default `results/<name>-model`).

    `config.network` overrides the architecture's own number of cells and channels.
    """
    architecture = architecture.resized(config.network.cells, config.network.channels)
    folder = out or RESULTS / f"{config.name}-model"
    with Run(folder, TrainJob(config=config, architecture=architecture), mode) as run:
        if not run.finished:
            _train_once(run, config, architecture, progress)
    return folder


class TrainJob(Options):
    """What a model folder was made from: the run config and the architecture."""

    config: RunConfig
    architecture: CellArchitecture


def _train_once(run: Run, config: RunConfig, architecture: CellArchitecture, progress: Progress) -> None:
    from robust_nas.data import split
    from robust_nas.nets import ModelDescription, build_network, save_model
    from robust_nas.training.loop import train as train_network

    options = config.training
    with prepared(run, config) as (dataset, device):
        mean, std = normalisation(config, dataset)
        network = build_network(
            architecture,
            input_shape=dataset.shape,
            classes=dataset.classes,
            mean=mean,
            std=std,
            auxiliary=options.auxiliary_weight > 0,
            seed=config.seed,
        ).to(device)
        images = dataset.train.to(device)
        kept, held_out = split(images.labels, config.data.validation, config.seed)
        outcome = train_network(
            run,
            network,
            images.subset(kept),
            images.subset(held_out),
            options,
            config.data.augment,
            seed=config.seed,
            checkpoint_seconds=config.checkpoint_seconds,
            progress=progress,
        )
    made = {
        "recipe": config.name,
        "seed": config.seed,
        "loss": repr(options.loss),
        "epoch": outcome.epoch,
        "validation_clean": outcome.clean,
        "validation_robust": outcome.robust,
        "validation_attack": repr(options.validation_attack),
        "dataset": dataset.name,
        "dataset_checksum": dataset.checksum,
    }
    description = ModelDescription(
        input_shape=dataset.shape, class_names=dataset.class_names, mean=mean, std=std, made_by=made
    )
    save_model(run.folder, architecture, outcome.state, description)
    attack = options.validation_attack
    caption = (
        f"{architecture.name}: {options.loss.name} training on {len(kept)} images of {dataset.name}, "
        f"seed {config.seed}; validation: {attack.name}-{attack.steps}, {attack.norm} eps {attack.eps:.4g}, "
        f"{len(held_out)} images"
    )
    figures.plot_training(
        run.records(), run.folder / "figures" / "training", best_epoch=outcome.epoch, caption=caption
    )
    cost = count(architecture, dataset.shape, dataset.classes)
    run.finish({**made, "params": cost.params, "macs": cost.macs, "seconds": round(outcome.seconds, 1)})


def evaluate(
    config: RunConfig,
    model_folder: Path,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Attacks a model on the test set; returns the tree of `evaluation.json` (default in `<model>/evaluation`)."""
    from robust_nas.evaluation import bars
    from robust_nas.nets import read_model

    folder = out or model_folder / "evaluation"
    model = read_model(model_folder)
    weights = hashlib.sha256((model_folder / "model.safetensors").read_bytes()).hexdigest()
    job = EvaluateJob(config=config, model=relative(model_folder, folder), weights=weights)
    with Run(folder, job, mode) as run:
        if not run.finished:
            with prepared(run, config) as (dataset, device):
                _refuse_other_images(model.description, dataset, model_folder)
                found = _evaluate(config, model.network.to(device), dataset, progress)
            tree = {"model": relative(model_folder, folder), "dataset": dataset.name, **found.to_tree()}
            write_json(folder / "evaluation.json", tree)
            threat = config.evaluation.threat_model
            threat_text = f"{threat.norm} eps {threat.eps:.4g}, seed {config.seed}"
            caption = f"{model.architecture.name} on {dataset.name}, {threat_text}"
            figures.plot_evaluation(bars(tree), folder / "figures" / "evaluation", caption=caption)
            run.finish({"clean": tree["clean"]["accuracy"], "robust": tree["robust"]["accuracy"]})
        return read_json(folder / "evaluation.json")


class EvaluateJob(Options):
    """What an evaluation was made from: the run config, and the model by its place (as seen from the evaluation)."""

    config: RunConfig
    model: str
    weights: str  # SHA-256 of model.safetensors: a model trained anew is another model


def _refuse_other_images(model: ModelDescription, dataset: Dataset, folder: Path) -> None:
    """Raises `ConfigError` when a model takes images of another shape, or of other classes, than the dataset's."""
    if model.input_shape != dataset.shape:
        raise ConfigError(
            f"{folder}: takes images of shape {model.input_shape}, {dataset.name} has {dataset.shape}"
        )
    if model.class_names != dataset.class_names:
        ours, theirs = (", ".join(names[:4]) for names in (model.class_names, dataset.class_names))
        raise ConfigError(
            f"{folder}: tells {len(model.class_names)} classes ({ours}, ...), "
            f"{dataset.name} has {len(dataset.class_names)} ({theirs}, ...)"
        )


def _evaluate(
    config: RunConfig, network: torch.nn.Module, dataset: Dataset, progress: Progress
) -> Evaluation:
    from robust_nas.evaluation import evaluate as attack_all
    from robust_nas.nets import channels_last

    def report(name: str, fraction: float) -> None:
        progress(f"evaluate: {name}", round(100 * fraction), 100)  # per cent of the attack's images

    return attack_all(
        channels_last(network), dataset.test, config.evaluation, seed=config.seed, progress=report
    )


def export(model_folder: Path, out: Path | None = None) -> Path:
    """Writes the model as plain Python with torch alone (`network.py`, `weights.pt`); returns the folder."""
    from robust_nas.export import export_source
    from robust_nas.nets import read_model

    folder = out or model_folder / "export"
    export_source(read_model(model_folder), folder)
    return folder


def run(
    config: RunConfig,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
    warn: Warn = lambda message: None,
) -> dict[str, Any]:
    """The whole way; returns the tree of `summary.json` in the folder (default `results/<name>`)."""
    folder = out or RESULTS / config.name
    began = time.perf_counter()
    with Run(folder, config, mode) as outer:
        if outer.finished:
            return read_json(folder / "summary.json")
        for message in _doubts(config):
            warn(message)
        write_json(folder / "environment.json", environment(config))
        inner: Mode = "resume" if mode == "resume" else "new"
        found = run_search(config, folder / "search", mode=inner, progress=progress)
        write_json(folder / "environment.json", read_json(found.folder / "environment.json"))
        for message in found.record["warnings"]:
            warn(message)
        model = train(config, found.architecture, folder / "model", mode=inner, progress=progress)
        verdict = evaluate(config, model, folder / "evaluation", mode=inner, progress=progress)
        export(model, folder / "export")
        trained = read_json(model / "result.json")
        summary = {
            "schema_version": 1,
            "name": config.name,
            "clean": verdict["clean"]["accuracy"],
            "robust": verdict["robust"]["accuracy"],
            "attack": " + ".join(verdict["robust"]["attacks"]),
            "norm": config.evaluation.threat_model.norm,
            "eps": config.evaluation.threat_model.eps,
            "images": verdict["robust"]["images"],
            "images_clean": verdict["clean"]["images"],
            "params": trained["params"],
            "macs": trained["macs"],
            "seconds": round(found.record["seconds"] + trained["seconds"] + verdict["seconds"], 1),
            "seconds_this_call": round(time.perf_counter() - began, 1),
            "seconds_per_step": {
                "search": found.record["seconds"],
                "train": trained["seconds"],
                "evaluate": round(verdict["seconds"], 1),
            },
            "seed": config.seed,
            "dataset": verdict["dataset"],
            "artifacts": {
                "architecture": "search/architecture.yaml",
                "model": "model",
                "evaluation": "evaluation/evaluation.json",
                "export": "export/network.py",
                "cells": "search/figures/cells.png",
                "search_curves": "search/figures/search.png",
                "training_curves": "model/figures/training.png",
                "evaluation_figure": "evaluation/figures/evaluation.png",
            },
        }
        write_json(folder / "summary.json", summary)
        outer.finish({"summary": "summary.json"})
        return summary


def _doubts(config: RunConfig) -> list[str]:
    """What is allowed but probably not meant."""
    eps = config.evaluation.threat_model.eps
    return [
        f"{name} attacks with eps {found:.4g}, the evaluation with {eps:.4g}"
        for name, found in (
            ("search.attack", config.search.attack.eps),
            ("training.validation_attack", config.training.validation_attack.eps),
        )
        if found != eps
    ]


def draw_architecture(architecture: CellArchitecture, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
    """Draws the cells of an architecture as PNG and SVG (and their edges as CSV); returns the paths."""
    cells = {
        cell.kind: [[(edge.operation, edge.source) for edge in node] for node in cell.nodes]
        for cell in architecture.genotype
    }
    concat = {cell.kind: cell.concat for cell in architecture.genotype}
    return figures.draw_cells(cells, stem, concat=concat, caption=caption)
