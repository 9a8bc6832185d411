"""An evaluation as a job: from a model folder, or any torch module, to `evaluation.json` and its figures."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_nas import figures
from robust_nas.config import Options
from robust_nas.distributed import refuse_several
from robust_nas.errors import ConfigError
from robust_nas.evaluation.options import Step
from robust_nas.runs import Mode, Progress, Run, read_json, silent, write_json
from robust_nas.workflows.config import RESULTS, EvaluationConfig, RunConfig
from robust_nas.workflows.material import Material, needed, prepare, refuse_attacks, session

if TYPE_CHECKING:
    import torch

    from robust_nas.data import Dataset
    from robust_nas.evaluation import Evaluation
    from robust_nas.nets.model import ModelDescription

FIGURES = ("evaluation", "eps_curve", "loss_traces", "examples")


class EvaluateJob(Options):
    """What an evaluation was made from: data and protocol, and the model by its place (as seen from the evaluation)."""

    config: EvaluationConfig
    steps: tuple[Step, ...]  # the attacks as the suite's file had them
    model: str
    weights: str  # SHA-256 of the weights (and of the module's source): a model trained anew is another model


def run_evaluation(
    config: RunConfig | EvaluationConfig,
    model_folder: Path,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
    material: Material | None = None,
    module: torch.nn.Module | None = None,
) -> dict[str, Any]:
    """Attacks a model on the test set; returns the tree of `evaluation.json` (default in `<model>/evaluation`).

    `module` is the user's own, as it was before compression, where the folder was made from one.
    """
    from robust_nas.nets import read_model

    config = EvaluationConfig.of(config)
    model_folder = Path(model_folder)
    folder = Path(out) if out else model_folder / "evaluation"
    if folder.resolve() in (model_folder.resolve(), *model_folder.resolve().parents):
        raise ConfigError(
            f"{folder}: holds the model; an evaluation needs a folder of its own, such as {model_folder}/evaluation"
        )
    model = read_model(model_folder, module=module)
    job = EvaluateJob(
        config=config,
        steps=config.evaluation.steps,
        model=relative(model_folder, folder),
        weights=digest(model_folder / "model.safetensors"),
    )

    def fits(dataset: Dataset) -> None:
        refuse_misfit(model.description, dataset, model_folder)

    return _run(job, model.network, model.name, folder, fits, mode, progress, material)


def evaluate_module(
    config: EvaluationConfig,
    module: str,
    weights: Path | None = None,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Attacks the torch module that `path.py:function` builds; default folder `results/<name>-evaluation`.

    `weights` is a safetensors file, or the folder of the module as it was compressed.
    The module takes images `[B, C, H, W]` in 0..1 and gives logits: its normalisation is inside.
    """
    from robust_nas.nets.model import DESCRIPTION, WEIGHTS
    from robust_nas.nets.user_module import load_module, source_of

    folder = Path(out) if out else RESULTS / f"{config.name}-evaluation"
    path, name = source_of(module)
    network = load_module(module, weights)
    files = [path]
    if weights is not None:
        files += [weights / WEIGHTS, weights / DESCRIPTION] if weights.is_dir() else [weights]
    digests = [digest(file) for file in files]
    job = EvaluateJob(
        config=config,
        steps=config.evaluation.steps,
        model=f"{relative(path, folder)}:{name}",
        weights=hashlib.sha256("".join(digests).encode()).hexdigest(),
    )
    return _run(job, network, config.name, folder, lambda dataset: None, mode, progress, None)


def _run(
    job: EvaluateJob,
    network: torch.nn.Module,
    name: str,
    folder: Path,
    refuse_misfit: Callable[[Dataset], None],
    mode: Mode,
    progress: Progress,
    material: Material | None,
) -> dict[str, Any]:
    refuse_several("evaluate")
    config = job.config
    material = material or needed(config, folder, mode)
    if material is not None:
        refuse_misfit(material.dataset)
        refuse_attacks(config, material.dataset)
    with Run(folder, job, mode) as run:
        if not run.finished:
            material = material or prepare(config)
            dataset = material.dataset
            with session(run, config, material):
                found = _evaluate(run, config, network.to(material.device), dataset, progress)
            tree = {"model": job.model, "dataset": dataset.name, **found.to_dict()}
            write_json(folder / "evaluation.json", tree)
            drawn = _draw(found, tree, folder / "figures", name, dataset)
            result = {
                "clean": tree["clean"]["accuracy"],
                "robust": tree["robust"]["accuracy"],
                "verdict": tree["verdict"]["status"],
            }
            run.finish(result, ["evaluation.json", *drawn])
        return read_json(folder / "evaluation.json")


def _evaluate(
    run: Run, config: EvaluationConfig, network: torch.nn.Module, dataset: Dataset, progress: Progress
) -> Evaluation:
    from robust_nas.errors import CheckpointError
    from robust_nas.evaluation import Journal, follow_protocol

    def report(name: str, fraction: float) -> None:
        progress(f"evaluate: {name}", round(100 * fraction), 100)  # per cent of the attack's images

    state = run.load_checkpoint() or {"job": "evaluate", "records": {}}
    if state.get("job") != "evaluate":
        raise CheckpointError(
            f"{run.folder}: its checkpoint is of job {state.get('job')!r}, not of an evaluation"
        )

    def save(records: dict[str, Any]) -> None:
        run.save_checkpoint({"job": "evaluate", "records": records})

    return follow_protocol(
        network,
        dataset.test,
        config.evaluation,
        seed=config.seed,
        journal=Journal(state["records"], save),
        progress=report,
    )


def _draw(found: Evaluation, tree: dict[str, Any], folder: Path, name: str, dataset: Dataset) -> list[str]:
    """Draws what there is to draw; returns the files, as seen from the run's folder."""
    from robust_nas.evaluation import bars

    threat = found.options.threat_model
    about = f"{name} on {dataset.name}, {threat.norm} eps {threat.eps:.4g}, seed {found.seed}"
    attacks = ", ".join(row.label for row in found.rows)
    figures.plot_evaluation(
        bars(tree), folder / "evaluation", caption=f"{about}; verdict {found.verdict.status}"
    )
    drawn = ["evaluation"]
    if found.eps_curve:
        images = found.eps_curve[0]["images"]
        caption = f"{about}; PGD on the margin at each eps, {images} images"
        points = [{key: point[key] for key in point if key != "attack"} for point in found.eps_curve]
        figures.plot_eps_curve(
            points,  # one line, whatever number of steps each point took
            folder / "eps_curve",
            eps=threat.eps,
            chance=found.chance,
            norm=threat.norm,
            caption=caption,
        )
        drawn.append("eps_curve")
    traces = {row.label: list(row.trace) for row in found.rows if row.trace}
    if traces:
        units = {row.label: _unit(row.parameters.get("loss", "ce")) for row in found.rows if row.trace}
        counts = ", ".join(f"{row.label} {row.attacked}" for row in found.rows if row.trace)
        caption = f"{about}; first run of each attack, images: {counts}; band: 10th to 90th percentile"
        figures.plot_loss_traces(traces, folder / "loss_traces", units=units, caption=caption)
        drawn.append("loss_traces")
    if found.examples:
        figures.plot_adversarial_grid(
            list(found.examples),
            folder / "examples",
            class_names=dataset.class_names,
            caption=f"{about}; the first images that were attacked; attacks: {attacks}",
        )
        drawn.append("examples")
    return [f"figures/{stem}.png" for stem in drawn]


def _unit(loss: str) -> str:
    return {
        "ce": "cross-entropy, nats",
        "ce-targeted": "log-probability of the target, nats",
        "kl": "KL from the clean prediction, nats",
        "margin": "margin, logits",
    }.get(loss, f"{loss}, no unit")


def refuse_misfit(model: ModelDescription, dataset: Dataset, folder: Path) -> None:
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


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def relative(path: Path, start: Path) -> str:
    """`path` as seen from `start`, so that a folder of results can be moved as a whole."""
    return Path(os.path.relpath(path.resolve(), start.resolve())).as_posix()
