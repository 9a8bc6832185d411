"""An evaluation as a job: from a model folder to `evaluation.json`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_nas import figures
from robust_nas.config import Options, check
from robust_nas.errors import ConfigError
from robust_nas.jobs.material import Material, needed, prepare, refuse_attacks, session
from robust_nas.recipes import RunConfig
from robust_nas.runs import Mode, Progress, Run, read_json, silent, write_json

if TYPE_CHECKING:
    import torch

    from robust_nas.data import Dataset
    from robust_nas.evaluation import Evaluation
    from robust_nas.nets.model import ModelDescription


def evaluate(
    config: RunConfig,
    model_folder: Path,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
    material: Material | None = None,
) -> dict[str, Any]:
    """Attacks a model on the test set; returns the tree of `evaluation.json` (default in `<model>/evaluation`)."""
    from robust_nas.evaluation import bars
    from robust_nas.nets import read_model

    model_folder = Path(model_folder)
    folder = Path(out) if out else model_folder / "evaluation"
    if folder.resolve() in (model_folder.resolve(), *model_folder.resolve().parents):
        raise ConfigError(
            f"{folder}: holds the model; an evaluation needs a folder of its own, such as {model_folder}/evaluation"
        )
    model = read_model(model_folder)
    weights = hashlib.sha256((model_folder / "model.safetensors").read_bytes()).hexdigest()
    made = {"config": config, "model": relative(model_folder, folder), "weights": weights}
    job = check(EvaluateJob, made, "evaluation", context="model")
    material = material or needed(config, folder, mode)
    if material is not None:
        _refuse_misfit(model.description, material.dataset, model_folder)
        refuse_attacks(config, material.dataset)
    with Run(folder, job, mode) as run:
        if not run.finished:
            material = material or prepare(config)
            dataset = material.dataset
            with session(run, config, material):
                found = _evaluate(config, model.network.to(material.device), dataset, progress)
            tree = {"model": relative(model_folder, folder), "dataset": dataset.name, **found.to_tree()}
            write_json(folder / "evaluation.json", tree)
            threat = config.evaluation.threat_model
            threat_text = f"{threat.norm} eps {threat.eps:.4g}, seed {config.seed}"
            caption = f"{model.architecture.name} on {dataset.name}, {threat_text}"
            figures.plot_evaluation(bars(tree), folder / "figures" / "evaluation", caption=caption)
            result = {"clean": tree["clean"]["accuracy"], "robust": tree["robust"]["accuracy"]}
            run.finish(result, ["evaluation.json", "figures/evaluation.png"])
        return read_json(folder / "evaluation.json")


class EvaluateJob(Options):
    """What an evaluation was made from: the run config, and the model by its place (as seen from the evaluation)."""

    config: RunConfig
    model: str
    weights: str  # SHA-256 of model.safetensors: a model trained anew is another model


def _refuse_misfit(model: ModelDescription, dataset: Dataset, folder: Path) -> None:
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


def relative(path: Path, start: Path) -> str:
    """`path` as seen from `start`, so that a folder of results can be moved as a whole."""
    return Path(os.path.relpath(path.resolve(), start.resolve())).as_posix()
