"""The jobs of a verb with their passes, for what shows how far the whole is. All passes are at most those."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_nas.attacks import Attack
from robust_nas.stages import Stage

if TYPE_CHECKING:
    from robust_nas.data import Dataset
    from robust_nas.training import Training
    from robust_nas.workflows.config import EvaluationConfig, RunConfig
    from robust_nas.workflows.context import JobContext


def run_stages(config: RunConfig, context: JobContext) -> list[Stage]:
    """Return the jobs of `robust-nas run`: nothing is known of the passes of a search and a reference."""
    from robust_nas.workflows.config import EvaluationConfig

    validation = len(context.validation)
    stages = [
        Stage("search"),
        Stage("train", training_passes(config.training, len(context.images), validation)),
        *evaluation_stages(EvaluationConfig.of(config), context.dataset),
    ]
    if config.reference is not None:
        stages.append(Stage("reference"))  # with its compression
    elif config.compression is not None:
        stages.append(Stage("compress"))
    return stages


def training_passes(training: Training, images: int, validation: int) -> float | None:
    """Return the forward-pass equivalents of a training and of its validations."""
    validated = len(training.validated_epochs) * min(training.validation_images or validation, validation)
    attacked = attack_passes(training.validation_attack)
    return (
        None if attacked is None else training.passes * images * training.epochs + validated * (attacked + 1)
    )


def evaluation_stages(config: EvaluationConfig, dataset: Dataset) -> list[Stage]:
    """Return the parts of an evaluation: clean images, an attack each, and the findings."""
    options, classes = config.evaluation, dataset.classes
    images = min(options.images or len(dataset.test), len(dataset.test))
    attacks = [
        (part, min(step.images or images, images))
        for step in options.steps
        if step.suits(classes)
        for part in step.attack.parts()
    ]
    stages = [Stage("evaluate: clean", images)]
    spent: float | None = 0.0
    for attack, share in attacks:
        one = attack_passes(attack)
        stages.append(Stage(f"evaluate: {attack.label}", None if one is None else one * share))
        spent = None if one is None or spent is None else spent + one * share
    findings = {"none": 0.0, "budget": spent}.get(options.findings)
    return [*stages, Stage("evaluate: findings", findings)]


def attack_passes(attack: Attack) -> int | None:
    """Return the passes of one image, forward and backward, at most; None for an attack that does not say it."""
    try:
        return attack.passes.total * attack.eot
    except NotImplementedError:
        return None
