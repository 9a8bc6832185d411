"""CSTAR and its baselines as steps of a compression: low-rank training, factors, fine-tuning, each a run of its own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from safetensors.torch import load_file, save

from robust_nas import figures
from robust_nas.compression.options import CSTAR
from robust_nas.config import Options
from robust_nas.runs import Progress, Run, read_json, write_atomic
from robust_nas.training import Cosine, Loss, Training
from robust_nas.workflows.config import CompressionConfig

if TYPE_CHECKING:
    from torch import nn

    from robust_nas.compression.tucker import Ranks
    from robust_nas.layers.factorised import LayerForm
    from robust_nas.nets import Model
    from robust_nas.workflows.compress_work import Work

LOW_RANK = "low-rank.safetensors"
Baseline = Literal["truncate", "truncate-short", "uniform"]


class StepJob(Options):
    """What a step of a compression was made from; `config` is where `robust-nas evaluate` finds data and protocol."""

    config: CompressionConfig
    step: str


class Tuning(NamedTuple):
    """How a network in factors is trained on; the loss is the recipe's where it is None."""

    epochs: int
    learning_rate: float
    loss: Loss | None = None


def run_cstar(work: Work, options: CSTAR, ratio: float, folder: Path) -> Path:
    """Trains to low rank in `<folder>/admm`, fine-tunes the factors in `<folder>/model`, and returns that model folder.

    Raises `CompressionError` for a ratio out of reach, `DivergenceError` where a loss stops being finite.
    """
    state, ranks = _low_rank(work, options, ratio, folder / "admm")
    network = _copy(work)
    network.load_state_dict(state)
    made = {"cstar": {"ratio": ratio, "epochs": options.epochs, "finetune_epochs": options.finetune_epochs}}
    return _tuned(work, options, network, ranks, options.finetune_epochs, folder, made)


def run_baseline(
    work: Work, options: CSTAR, ratio: float, folder: Path, *, kind: Baseline, cstar: Path
) -> Path:
    """The trained weights cut to ranks and fine-tuned for as many epochs as CSTAR takes in all; the model folder.

    `truncate` takes the ranks that CSTAR found (its folder is `cstar`), `truncate-short` too, and is fine-tuned only as
    long as CSTAR's factors are; `uniform` takes the same share of every side.
    """
    from robust_nas.compression.cstar import limits
    from robust_nas.compression.layers import survey
    from robust_nas.compression.ranks import uniform_ranks

    network = _copy(work)
    if kind != "uniform":
        ranks = _ranks(cstar / "admm")
    else:
        layers = survey(network, work.source.model.description.input_shape)
        ranks = uniform_ranks(layers, ratio, limits(options))
    epochs = options.finetune_epochs + (0 if kind == "truncate-short" else options.epochs)
    made: dict[str, Any] = {kind: {"ratio": ratio, "epochs": epochs}}
    return _tuned(work, options, network, ranks, epochs, folder, made)


def _copy(work: Work) -> nn.Module:
    return copy.deepcopy(work.source.model.network).to(work.material.device)


def _ranks(folder: Path) -> dict[str, Ranks]:
    return {name: tuple(own) for name, own in read_json(folder / "result.json")["ranks"].items()}


def _tuned(
    work: Work,
    options: CSTAR,
    network: nn.Module,
    ranks: dict[str, Ranks],
    epochs: int,
    folder: Path,
    made: dict[str, Any],
) -> Path:
    """The network in factors of these ranks, fine-tuned."""
    from robust_nas.compression.cstar import factorise

    factors, forms = factorise(network, ranks, options.sweeps)
    rate = options.finetune_learning_rate or work.config.training.learning_rate / 2
    tuning = Tuning(epochs, rate, options.loss)
    return finetune(work, work.source.model, factors, forms, tuning, folder / "model", made)


def _recipe(recipe: Training, epochs: int, learning_rate: float, **more: Any) -> Training:
    """The recipe for a network that is trained already: its own epochs and rate, no auxiliary head, no drop path."""
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


def _low_rank(
    work: Work, options: CSTAR, ratio: float, folder: Path
) -> tuple[dict[str, Any], dict[str, Ranks]]:
    """The weights that ADMM leaves, of low rank, and their ranks."""
    from robust_nas.compression.cstar import ADMM, frozen_from, rho_schedule
    from robust_nas.data.order import batches
    from robust_nas.training.loop import train

    config, images = work.config, work.images
    # The ranks are those of the epoch that is kept, so only epochs with the final ones are looked at.
    recipe = _recipe(
        config.training,
        options.epochs,
        options.learning_rate or config.training.learning_rate,
        ema=None,
        schedule=Cosine(final=0.1),  # at a rate of 0 no rho would draw the weights
        validate_from=frozen_from(options),
        validate_every=1,
    )
    job = StepJob(config=config, step=f"cstar, ratio {ratio:g}: low rank")
    with Run(folder, job, work.inner_mode) as run:
        if not run.finished:
            network = _copy(work)
            steps = len(batches(len(images), recipe.batch_size, seed=0, epoch=0))
            epochs = range(recipe.epochs)
            rates = [recipe.learning_rate * recipe.schedule.factor_at(e + 0.5, recipe.epochs) for e in epochs]
            rhos = rho_schedule(options, rates, steps, recipe.momentum)
            shape = work.source.model.description.input_shape
            constraint = ADMM(network, shape, ratio, options, rhos)
            outcome = train(
                run,
                network,
                images,
                work.validation,
                recipe,
                config.data.augment,
                seed=config.seed,
                checkpoint_seconds=config.checkpoint_seconds,
                progress=_named(work.progress, "compress: low rank"),
                hooks=[constraint],
            )
            write_atomic(folder / LOW_RANK, save(outcome.state))
            records = run.records()
            caption = (
                f"CSTAR-style, ratio {ratio:g}, {len(images)} images, seed {config.seed}; "
                f"validation of the projected network: {len(work.validation)} images"
            )
            figures.plot_ranks(records, folder / "figures" / "ranks", caption=caption)
            result = {
                "ratio": ratio,
                "epoch": outcome.epoch,
                "validation_clean": outcome.clean,
                "validation_robust": outcome.robust,
                "primal_residual": records[outcome.epoch]["primal_residual"],
                "ranks": {name: list(own) for name, own in constraint.ranks.items()},
                "seconds": round(outcome.seconds, 1),
            }
            run.finish(result, [LOW_RANK, "figures/ranks.png"])
    return load_file(folder / LOW_RANK), _ranks(folder)


def finetune(
    work: Work,
    model: Model,
    network: nn.Module,
    forms: tuple[LayerForm, ...],
    tuning: Tuning,
    folder: Path,
    made: dict[str, Any],
) -> Path:
    """Trains a network in factors by the recipe (or a loss of its own) and writes the model folder.

    `forms` are those that the network has beside the model's own; `made` goes to what the model was made by, under the
    name of the step.
    """
    from robust_nas.nets import save_model
    from robust_nas.nets.model import ARCHITECTURE, DESCRIPTION, WEIGHTS
    from robust_nas.training.loop import train

    config = work.config
    own = {} if tuning.loss is None else {"loss": tuning.loss}
    recipe = _recipe(config.training, tuning.epochs, tuning.learning_rate, **own)
    (step,) = made
    with Run(folder, StepJob(config=config, step=f"{step}: fine-tuning"), work.inner_mode) as run:
        if not run.finished:
            outcome = train(
                run,
                network,
                work.images,
                work.validation,
                recipe,
                config.data.augment,
                seed=config.seed,
                checkpoint_seconds=config.checkpoint_seconds,
                progress=_named(work.progress, f"compress: tune {step}"),
            )
            validated = {
                "epoch": outcome.epoch,
                "validation_clean": outcome.clean,
                "validation_robust": outcome.robust,
            }
            description = model.description.changed(forms, {**made, **validated})
            save_model(folder, model.architecture, outcome.state, description)
            caption = (
                f"{step}: fine-tuning, {len(work.images)} images, seed {config.seed}; "
                f"validation: {len(work.validation)} images"
            )
            figures.plot_training(
                run.records(), folder / "figures" / "training", best_epoch=outcome.epoch, caption=caption
            )
            files = [DESCRIPTION, WEIGHTS, "figures/training.png"]
            if model.architecture is not None:
                files.append(ARCHITECTURE)
            run.finish({**description.made_by, "seconds": round(outcome.seconds, 1)}, files)
    return folder


def _named(progress: Progress, own: str) -> Progress:
    """The progress of a training under another name."""

    def report(job: str, done: int, total: int, note: str = "") -> None:
        progress(own, done, total, note)

    return report
