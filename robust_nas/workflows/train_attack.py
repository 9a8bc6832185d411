"""The training of an attack as a job: from a model folder, the victim, to a generator folder and its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_nas import figures
from robust_nas.attacks import ThreatModel
from robust_nas.config import to_dict
from robust_nas.data import DataOptions
from robust_nas.distributed import ALONE, refuse_several
from robust_nas.errors import ConfigError
from robust_nas.extension import ExtensibleJob
from robust_nas.records import Shape, read_record
from robust_nas.run_folder import Mode, Progress, Run, silent, write_json
from robust_nas.training.ai_gan import AIGANTraining
from robust_nas.workflows.attack_config import AttackReport, AttackTrainingConfig
from robust_nas.workflows.context import JobContext, context_unless_finished, load_context, session
from robust_nas.workflows.deployed_rule import refuse_rule_of
from robust_nas.workflows.evaluate import refuse_misfit
from robust_nas.workflows.places import Written, model_in, of_model
from robust_nas.workflows.report.at_end import reporting
from robust_nas.workflows.training_images import refuse_other_images_than_training

if TYPE_CHECKING:
    from robust_nas.nets import Model
    from robust_nas.nets.generator_folder import GeneratorDescription
    from robust_nas.training.ai_gan_loop import GeneratorOutcome

REPORT = "report.json"
FIGURE = "generator"  # stem of the curves
_ROW: Shape = {"class": str, "pairs": int, "attack_success": float, "pgd_success": float}
_BOTH: Shape = {"attack": float, "pgd": float}
REPORTED: Shape = {
    "name": str,
    "method": str,
    "model": str,
    "dataset": str,
    "threat_model": {"norm": str, "eps": float},
    "seed": int,
    "epoch": int,
    "validation": {"success": float, "pairs": int},
    "pgd_label": str,
    "images": int,
    "clean": float,
    "classes": [_ROW, ...],
    "all": _ROW,
    "fooled": _BOTH,
    "params": int,
    "batch_size": int,
    "ms_per_image": _BOTH,
    "times_faster": float,
    "macs": {"attack": int, "pgd": int},
    "macs_ratio": float,
    "seconds": float,
}


class TrainAttackJob(ExtensibleJob):
    """What a trained attack depends on: data, threat model, method, and everything that decides its victim's answers.

    Nothing of it can be extended; its place and that of its images may change.
    """

    name: str
    seed: int
    data: DataOptions
    threat_model: ThreatModel
    method: AIGANTraining
    report: AttackReport
    model: str  # the victim's place as seen from the folder
    digest: str  # the victim's (`nets/digest.py`)


def train_attack(
    config: AttackTrainingConfig,
    model: Path | str,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
    context: JobContext | None = None,
    other_data: bool = False,
) -> Written:
    """Train an attack on the model in a folder; return the content of `report.json`, and its `folder`.

    Results go to a folder with the name of the method in the run folder of the model (see `places.py`).

    The folder is a generator folder: `load_generator(folder)`, or the option `generator` of the attack of this name.
    Raises `CheckpointError` for a folder without a model, and `DataError` for other images than those that it was
    trained on, unless `other_data` says that they are meant.
    """
    from robust_nas.nets import read_model

    refuse_several("attack train")
    model_folder = model_in(model)
    victim = read_model(model_folder)
    refuse_rule_of(victim, f"the training of {config.method.label}")
    wanted = TrainAttackJob(
        **{key: getattr(config, key) for key in ("name", "seed", "data", "threat_model", "method", "report")},
        model="",
        digest=victim.digest,
    )
    folder, job = of_model("attack train", wanted, model_folder, out, mode, method=config.method.label)
    context = context_unless_finished(config, folder, mode, context, job)
    if context is not None:
        refuse_misfit(victim.description, context.dataset, model_folder)
        refuse_other_images_than_training(victim, context.dataset, other_data)
        _refuse_images(config, context)
    with reporting(folder), Run(folder, job, mode, recipe=config) as run:
        if not run.complete:
            context = context or load_context(config)
            with session(run, JobContext(config, context.dataset, context.device)):
                _train_once(run, job, config, context, victim, progress)
        report = read_record(folder, REPORT, REPORTED)
        if config.figures:
            own, about = run.records(), _about(report)
            record = {"records": own, "best_epoch": report["epoch"]}
            figures.draw_own("attack", record, folder / "figures", about=about, figures=config.figures)
    return Written(report, folder)


def _refuse_images(config: AttackTrainingConfig, context: JobContext) -> None:
    """Raise `ConfigError` for images that are too small for the networks, or too few for a batch."""
    from robust_nas.nets.ai_gan import LEAST_SIDE

    _, height, width = context.dataset.shape
    if min(height, width) < LEAST_SIDE:
        raise ConfigError(
            f"{config.method.label} needs images of at least {LEAST_SIDE} x {LEAST_SIDE} pixels, "
            f"{context.dataset.name} has {height} x {width}"
        )
    ALONE.refuse_small(min(config.method.batch_size, len(context.images)), "method.batch_size")


def _train_once(
    run: Run,
    job: TrainAttackJob,
    config: AttackTrainingConfig,
    context: JobContext,
    victim: Model,
    progress: Progress,
) -> None:
    """Train, measure and write what is not there yet, and finish the run."""
    from robust_nas.nets.generator_folder import DESCRIPTION, WEIGHTS

    if not run.finished:
        outcome = _trained(run, config, context, victim, progress)
        description = _described(config, context, victim, outcome)
        _write(run, job, config, context, victim, outcome, description, progress)
    from robust_nas.records import read_json

    report = read_json(run.folder / REPORT, REPORTED)
    record = {"records": run.records(), "best_epoch": report["epoch"]}
    figures.draw_figures("attack", record, run.folder / "figures", about=_about(report))
    result = {
        "success": report["all"]["attack_success"],
        "pgd_success": report["all"]["pgd_success"],
        **{key: report[key] for key in ("epoch", "params", "times_faster", "seconds", "dataset", "seed")},
    }
    run.finish(result, [DESCRIPTION, WEIGHTS, REPORT], figures=(FIGURE,))


def _trained(
    run: Run, config: AttackTrainingConfig, context: JobContext, victim: Model, progress: Progress
) -> GeneratorOutcome:
    from robust_nas.training.ai_gan_loop import train_generator

    device = context.device
    return train_generator(
        run,
        victim.network.to(device),
        context.images_on_device,
        context.validation.to(device),
        config.method,
        config.threat_model,
        config.data.augment,
        classes=len(victim.description.class_names),
        seed=config.seed,
        checkpoint_seconds=config.checkpoint_seconds,
        progress=progress,
    )


def _described(
    config: AttackTrainingConfig, context: JobContext, victim: Model, outcome: GeneratorOutcome
) -> GeneratorDescription:
    from robust_nas.nets.digest import model_digest
    from robust_nas.nets.generator_folder import GeneratorDescription, Victim

    threat = config.threat_model
    return GeneratorDescription.model_validate(
        {
            "norm": threat.norm,
            "eps": threat.eps,
            "input_shape": victim.description.input_shape,
            "class_names": victim.description.class_names,
            "widths": config.method.widths,
            "blocks": config.method.blocks,
            "victim": Victim(
                name=victim.name, digest=model_digest(victim.network.cpu()), model=victim.digest
            ),
            "made_by": {
                "recipe": config.name,
                "seed": config.seed,
                "epoch": outcome.epoch,  # from 0, as in metrics.jsonl; people are shown it from 1
                "validation_success": outcome.success,
                "validation_pairs": outcome.pairs,
                "dataset": context.dataset.name,
                "dataset_checksum": context.dataset.checksum,
                "options": to_dict(config.method),
            },
        }
    )


def _write(
    run: Run,
    job: TrainAttackJob,
    config: AttackTrainingConfig,
    context: JobContext,
    victim: Model,
    outcome: GeneratorOutcome,
    description: GeneratorDescription,
    progress: Progress,
) -> None:
    """Write the generator, and its report on test images."""
    from robust_nas.nets.generator_folder import load_generator, save_generator
    from robust_nas.workflows.attack_report import measured_attack

    save_generator(run.folder, outcome.state, description)
    threat = config.threat_model
    measured = measured_attack(
        load_generator(run.folder, context.device),
        victim.network.to(context.device),
        context.dataset.test.to(context.device),
        threat,
        config.report,
        description.class_names,
        method=config.method.label,
        seed=config.seed,
        progress=progress,
    )
    report = {
        "name": config.name,
        "model": job.model,
        "victim": to_dict(description.victim),
        "dataset": context.dataset.name,
        "threat_model": {"norm": threat.norm, "eps": threat.eps},
        "seed": config.seed,
        "epoch": outcome.epoch,
        "validation": {"success": outcome.success, "pairs": outcome.pairs},
        **measured,
        "seconds": round(outcome.seconds, 1),
    }
    write_json(run.folder / REPORT, report)


def _about(report: dict[str, Any]) -> str:
    """Return what the figures have in their captions."""
    threat, validation = report["threat_model"], report["validation"]
    return (
        f"{report['method']} on {report['dataset']}, {threat['norm']} eps {threat['eps']:.4g}, "
        f"seed {report['seed']}; success on {validation['pairs']} validation images, a target each"
    )
