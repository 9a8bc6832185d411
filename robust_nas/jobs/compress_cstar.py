"""CSTAR and its baselines as steps of a compression: low-rank training, factors, fine-tuning, each a run of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from safetensors.torch import load_file, save

from robust_nas import figures
from robust_nas.compression.options import CSTAR
from robust_nas.config import Options
from robust_nas.recipes import CompressionConfig
from robust_nas.runs import Mode, Progress, Run, read_json, silent, write_atomic
from robust_nas.training.options import Cosine, Loss, Training

if TYPE_CHECKING:
    from torch import nn

    from robust_nas.compression.tucker import Ranks
    from robust_nas.data import Images
    from robust_nas.nets import Model
    from robust_nas.nets.factorised import LayerForm

LOW_RANK = "low-rank.safetensors"
Baseline = Literal["truncate", "uniform"]


class StepJob(Options):
    """What a step of a compression was made from; `config` is where `robust-nas evaluate` finds data and protocol."""

    config: CompressionConfig
    step: str


class Tuning(NamedTuple):
    """How a network in factors is trained on; the loss is the recipe's where it is None."""

    epochs: int
    learning_rate: float
    loss: Loss | None = None


def _tuning(options: CSTAR, epochs: int) -> Tuning:
    return Tuning(epochs, options.finetune_learning_rate, options.loss)


def run_cstar(
    model: Model,
    options: CSTAR,
    ratio: float,
    config: CompressionConfig,
    images: Images,
    validation: Images,
    folder: Path,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
) -> Path:
    """Trains to low rank in `<folder>/admm`, fine-tunes the factors in `<folder>/model`, and returns that model folder.

    Raises `CompressionError` for a ratio out of reach, `DivergenceError` where a loss stops being finite.
    """
    from robust_nas.compression.cstar import factorise

    state, ranks = _low_rank(
        model, options, ratio, config, images, validation, folder / "admm", mode, progress
    )
    network = _copy(model, images)
    network.load_state_dict(state)
    factors, forms = factorise(network, ranks, options.sweeps)
    made = {"cstar": {"ratio": ratio, "epochs": options.epochs, "finetune_epochs": options.finetune_epochs}}
    return finetune(
        model,
        factors,
        forms,
        _tuning(options, options.finetune_epochs),
        config,
        images,
        validation,
        folder / "model",
        made=made,
        mode=mode,
        progress=progress,
    )


def run_baseline(
    kind: Baseline,
    model: Model,
    options: CSTAR,
    ratio: float,
    config: CompressionConfig,
    images: Images,
    validation: Images,
    folder: Path,
    *,
    cstar: Path,
    mode: Mode = "new",
    progress: Progress = silent,
) -> Path:
    """The trained weights cut to ranks and fine-tuned for as many epochs as CSTAR takes in all; the model folder.

    `truncate` takes the ranks that CSTAR found (its folder is `cstar`), `uniform` the same share of every side.
    """
    from robust_nas.compression.cstar import factorise, limits
    from robust_nas.compression.layers import survey
    from robust_nas.compression.ranks import uniform_ranks

    network = _copy(model, images)
    ranks: dict[str, Ranks]
    if kind == "truncate":
        ranks = _ranks(cstar / "admm")
    else:
        layers = survey(network, model.description.input_shape)
        ranks = uniform_ranks(layers, ratio, limits(options))
    factors, forms = factorise(network, ranks, options.sweeps)
    epochs = options.epochs + options.finetune_epochs
    return finetune(
        model,
        factors,
        forms,
        _tuning(options, epochs),
        config,
        images,
        validation,
        folder / "model",
        made={kind: {"ratio": ratio, "epochs": epochs}},
        mode=mode,
        progress=progress,
    )


def _copy(model: Model, images: Images) -> nn.Module:
    import copy

    return copy.deepcopy(model.network).to(images.pixels.device)


def _ranks(folder: Path) -> dict[str, Ranks]:
    return {name: tuple(own) for name, own in read_json(folder / "result.json")["ranks"].items()}


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
    model: Model,
    options: CSTAR,
    ratio: float,
    config: CompressionConfig,
    images: Images,
    validation: Images,
    folder: Path,
    mode: Mode,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, Ranks]]:
    """The weights that ADMM leaves, of low rank, and their ranks."""
    from robust_nas.compression.cstar import ADMM, first_rho, frozen_from
    from robust_nas.data.order import batches
    from robust_nas.training.loop import train

    # The ranks are those of the epoch that is kept, so only epochs with the final ones are looked at.
    recipe = _recipe(
        config.training,
        options.epochs,
        options.learning_rate,
        ema=None,
        schedule=Cosine(final=0.1),  # a rate of 0 would leave the penalty without effect
        validate_from=frozen_from(options),
        validate_every=1,
    )
    with Run(folder, StepJob(config=config, step=f"cstar, ratio {ratio:g}: low rank"), mode) as run:
        if not run.finished:
            network = _copy(model, images)
            steps = options.update_every * len(batches(len(images), recipe.batch_size, seed=0, epoch=0))
            rho = first_rho(options, steps, recipe.momentum)
            constraint = ADMM(network, model.description.input_shape, ratio, options, rho)
            outcome = train(
                run,
                network,
                images,
                validation,
                recipe,
                config.data.augment,
                seed=config.seed,
                checkpoint_seconds=config.checkpoint_seconds,
                progress=_named(progress, "compress: low rank"),
                constraint=constraint,
            )
            write_atomic(folder / LOW_RANK, save(outcome.state))
            records = run.records()
            caption = (
                f"CSTAR-style, ratio {ratio:g}, {len(images)} images, seed {config.seed}; "
                f"validation of the projected network: {len(validation)} images"
            )
            figures.plot_ranks(records, folder / "figures" / "ranks", caption=caption)
            kept = records[outcome.epoch]
            result = {
                "ratio": ratio,
                "epoch": outcome.epoch,
                "validation_clean": outcome.clean,
                "validation_robust": outcome.robust,
                "primal_residual": kept["primal_residual"],
                "ranks": {name: list(own) for name, own in constraint.ranks.items()},
                "seconds": round(outcome.seconds, 1),
            }
            run.finish(result, [LOW_RANK, "figures/ranks.png"])
    return load_file(folder / LOW_RANK), _ranks(folder)


def finetune(
    model: Model,
    network: nn.Module,
    forms: tuple[LayerForm, ...],
    tuning: Tuning,
    config: CompressionConfig,
    images: Images,
    validation: Images,
    folder: Path,
    *,
    made: dict[str, Any],
    mode: Mode = "new",
    progress: Progress = silent,
) -> Path:
    """Trains a network in factors by the recipe (or a loss of its own) and writes the model folder.

    `forms` are those that the factors have beside the model's own; `made` goes to what the model was made by.
    """
    from robust_nas.nets import save_model
    from robust_nas.nets.model import ARCHITECTURE, DESCRIPTION, WEIGHTS, StoredForm
    from robust_nas.training.loop import train

    own = {} if tuning.loss is None else {"loss": tuning.loss}
    recipe = _recipe(config.training, tuning.epochs, tuning.learning_rate, **own)
    step = next(iter(made))
    with Run(folder, StepJob(config=config, step=f"{step}: fine-tuning"), mode) as run:
        if not run.finished:
            outcome = train(
                run,
                network,
                images,
                validation,
                recipe,
                config.data.augment,
                seed=config.seed,
                checkpoint_seconds=config.checkpoint_seconds,
                progress=_named(progress, f"compress: tune {step}"),
            )
            description = model.description.model_copy(
                update={
                    "layers": (
                        *model.description.layers,
                        *(StoredForm(name=name, form=form, numbers=n) for name, form, n in forms),
                    ),
                    "made_by": {
                        **model.description.made_by,
                        **made,
                        "epoch": outcome.epoch,
                        "validation_clean": outcome.clean,
                        "validation_robust": outcome.robust,
                    },
                }
            )
            save_model(folder, model.architecture, outcome.state, description)
            caption = (
                f"{step}: fine-tuning, {len(images)} images, seed {config.seed}; "
                f"validation: {len(validation)} images"
            )
            figures.plot_training(
                run.records(), folder / "figures" / "training", best_epoch=outcome.epoch, caption=caption
            )
            files = [DESCRIPTION, WEIGHTS, "figures/training.png"]
            if model.architecture is not None:
                files.append(ARCHITECTURE)
            seconds = round(outcome.seconds, 1)
            run.finish({**description.made_by, "seconds": seconds}, files)
    return folder


def _named(progress: Progress, own: str) -> Progress:
    """The progress of a training under another name."""

    def report(job: str, done: int, total: int, note: str = "") -> None:
        progress(own, done, total, note)

    return report
