"""Fine-tuning of compressed networks: the training loop with its own epochs and rate, and a model folder at its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from robust_nas import figures
from robust_nas.compression.section import Compression
from robust_nas.data import DataOptions
from robust_nas.extension import ExtensibleJob
from robust_nas.run_folder import Progress, Run
from robust_nas.training import Cosine, Loss, Training

if TYPE_CHECKING:
    from torch import nn

    from robust_nas.compression.context import CompressionContext
    from robust_nas.layers.factorised import LayerForm
    from robust_nas.nets import Model


class StepJob(ExtensibleJob):
    """What a training inside a compression depends on: all of the compression's config but where it runs."""

    seed: int
    data: DataOptions
    training: Training
    compression: Compression
    step: str

    @classmethod
    def of(cls, config: Any, step: str) -> Self:
        """Return the record of a step of the compression with this config."""
        own = {key: getattr(config, key) for key in ("seed", "data", "training", "compression")}
        return cls(**own, step=step)


class Tuning(NamedTuple):
    """How a network in factors is trained; the loss is the recipe's where it is None."""

    epochs: int
    learning_rate: float
    loss: Loss | None = None
    key: str = "training.learning_rate"  # of the config, which decides the learning rate


def changed_recipe(recipe: Training, epochs: int, learning_rate: float, **more: Any) -> Training:
    """Return the recipe for a trained network: its own epochs and rate, no auxiliary head, no drop path."""
    changes = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "schedule": Cosine(),
        "auxiliary_weight": 0.0,
        "drop_path": 0.0,
        "validate_from": 0,
        "validate_every": max(1, epochs // 6),
        **more,
    }
    return Training(**{**{key: getattr(recipe, key) for key in Training.model_fields}, **changes})


def finetune(
    context: CompressionContext,
    model: Model,
    network: nn.Module,
    forms: tuple[LayerForm, ...],
    tuning: Tuning,
    folder: Path,
    made: dict[str, Any],
) -> Path:
    """Train a network in factors and write its model folder; returns that folder.

    Args:
        context: images, recipe, seed and mode.
        model: the description and architecture that the network's own are made from.
        network: what is trained, on the context's device.
        forms: those that the network has in addition to the model's.
        tuning: epochs, rate and loss.
        folder: of the run and of the model.
        made: one entry, the step's name and what it did; it joins what the model was made by.

    Raises:
        DivergenceError: a loss stopped being finite.
    """
    from robust_nas.nets import save_model
    from robust_nas.nets.model import ARCHITECTURE, DESCRIPTION, WEIGHTS
    from robust_nas.training.divergence import remedy_of
    from robust_nas.training.loop import train

    own = {} if tuning.loss is None else {"loss": tuning.loss}
    recipe = changed_recipe(context.recipe, tuning.epochs, tuning.learning_rate, **own)
    (step,) = made
    job = StepJob.of(context.config, f"{step}: fine-tuning")
    with Run(folder, job, context.inner_mode, recipe=context.config) as run:
        if not run.complete:
            outcome = train(
                run,
                network,
                context.images,
                context.validation,
                recipe,
                context.augmentation,
                seed=context.seed,
                checkpoint_seconds=context.checkpoint_seconds,
                progress=renamed(context.progress, f"compress: tune {step}"),
                remedy=remedy_of(tuning.key),
            )
            validated = {
                "epoch": outcome.epoch,
                "validation_clean": outcome.clean,
                "validation_robust": outcome.robust,
            }
            description = model.description.changed(forms, {**made, **validated})
            save_model(folder, model.architecture, outcome.state, description)
            caption = (
                f"{step}: fine-tuning, {len(context.images)} images, seed {context.seed}; "
                f"validation: {len(context.validation)} images"
            )
            with figures.optional("training"):
                figures.plot_training(
                    run.records(),
                    folder / "figures" / "training",
                    best_epoch=outcome.epoch,
                    attack=recipe.validation_attack.label,
                    caption=caption,
                )
            files = [DESCRIPTION, WEIGHTS]
            if model.architecture is not None:
                files.append(ARCHITECTURE)
            result = {**description.made_by, "seconds": round(outcome.seconds, 1)}
            run.finish(result, files, figures=("training",))
    return folder


def renamed(progress: Progress, own: str) -> Progress:
    """Return the progress of a training under another name."""

    def report(job: str, done: int, total: int, note: str = "") -> None:
        progress(own, done, total, note)

    return report
