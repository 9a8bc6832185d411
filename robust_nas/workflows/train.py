"""A training as a job: from a config and an architecture to a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from pydantic import ConfigDict

from robust_nas import figures
from robust_nas.config import Count, Options, check, read_yaml
from robust_nas.data import DataOptions
from robust_nas.distributed import Ranks, joined
from robust_nas.errors import RunExistsError
from robust_nas.extension import ExtensibleJob
from robust_nas.records import RESULT, Shape, read_json
from robust_nas.registry import as_recipe
from robust_nas.run_folder import CONFIG, Mode, Progress, Run, silent, write_json
from robust_nas.spaces import AnyArchitecture, Architecture, count, has_cells
from robust_nas.training import Training
from robust_nas.workflows.config import RunConfig, doubts
from robust_nas.workflows.context import (
    JobContext,
    context_unless_finished,
    distribute,
    load_context,
    open_run,
    refuse_auxiliary_head,
    refuse_cell_options,
    refuse_few_images,
    refuse_precision,
    session,
)
from robust_nas.workflows.memory import refuse_memory
from robust_nas.workflows.own_data import with_own_data
from robust_nas.workflows.places import of_config
from robust_nas.workflows.report.at_end import reporting
from robust_nas.workflows.untrained import untrained_network

if TYPE_CHECKING:
    from torch import nn

    from robust_nas.data import Images
    from robust_nas.nets import ModelDescription
    from robust_nas.training.loop import TrainingOutcome

EXPLANATION = "explanation.json"  # what the loss shows of the network; not there where it shows nothing
EXPLAINED_IMAGES = 6


def train(
    config: RunConfig,
    architecture: Architecture,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
    context: JobContext | None = None,
    data: Any = None,
    test: Any = None,
) -> Path:
    """Trains an architecture by the config's recipe; returns the model folder (default `results/<name>-model`).

    `data` are training images in the place of those that the config names, in any form of `robust_nas.as_dataset`
    (arrays, a torch Dataset or DataLoader, a Hugging Face dataset); `test` are kept with them, and not looked at.

    The architecture keeps its own size: that of `config.network` is of what a search finds. `network.particles` or
    `network.posterior` makes an ensemble, or a network with a posterior, of it.
    """
    config, context = with_own_data(config, context, data, test)
    architecture = config.network.made_of(architecture)
    refuse_cell_options(config.training, architecture)
    folder = of_config("train", out, config.name)
    job = TrainJob.of(config, architecture)
    context = context_unless_finished(config, folder, mode, context, job)
    if context is not None:
        refuse_precision(config.training.precision, context.device)
        refuse_few_images(config.training, context)
        if has_cells(architecture):
            refuse_auxiliary_head(config.training, architecture.layout, context.dataset)
        refuse_memory(architecture, config.training, context)
    with reporting(folder), joined() as ranks, open_run(ranks, folder, job, mode, recipe=config) as run:
        job = ranks.run_on_all(lambda: cast(TrainJob, run.config))
        config = cast(RunConfig, job.recipe_of(config))
        if not ranks.run_on_all(lambda: run.complete):
            _train_once(run, config, architecture, context or load_context(config), progress, ranks)
        ranks.run_on_all(lambda: _draw_own(run, config, architecture))
    return folder


TRAINED: Shape = {  # of `result.json`
    "params": int,
    "macs": int,
    "epoch": int,
    "validation_clean": float,
    "validation_robust": float,
    "dataset": str,
    "seed": int,
    "seconds": float,
}


def trained_record(folder: Path) -> dict[str, Any]:
    """Return what `result.json` of a finished training says. Raises `RunError` where it is damaged."""
    return read_json(folder / RESULT, TRAINED)


class TrainJob(ExtensibleJob):
    """What a trained model depends on: sections of the run config, and the architecture."""

    name: str
    seed: int
    data: DataOptions
    architecture: AnyArchitecture
    training: Training
    batch_norm: str

    @classmethod
    def of(cls, config: RunConfig, architecture: Architecture) -> Self:
        """Return the record of the training that a run config asks for."""
        keys = cls.model_fields.keys() - {"architecture", "extended"}
        return cls(architecture=architecture, **{key: getattr(config, key) for key in keys})

    def extension_of(self, before: Self, folder: Path) -> Self | None:
        """Return the job with more epochs, where nothing of the recipe depends on their number."""
        if self.same_but(before, "training") and more_epochs(self.training, before.training, folder):
            return self
        return None

    def recipe_of(self, recipe: Options) -> Options:
        """Return the whole config with the epochs of this job."""
        return recipe.model_copy(update={"training": self.training})


def architecture_of(folder: Path) -> Architecture:
    """Return the architecture that the training in a folder was started with. Raises `ConfigError`."""
    path = folder / CONFIG
    return check(TrainJob, read_yaml(path), str(path)).architecture


def epochs_of(folder: Path) -> int:
    """Return the epochs of the training in a folder, which may be more than what is asked of it now."""
    path = folder / CONFIG
    return check(_Epochs, read_yaml(path).get("training"), str(path)).epochs


class _Epochs(Options):
    model_config = ConfigDict(extra="ignore")

    epochs: Count


def more_epochs(more: Training, had: Training, folder: Path) -> bool:
    """Return whether a recipe differs from that of the folder in its epochs alone.

    Raise `RunExistsError` where these are fewer, or where something of the recipe depends on their number.
    """
    if more.model_copy(update={"epochs": had.epochs}) != had:
        return False
    why = ["it had more"] if more.epochs < had.epochs else had.bound_to_epochs
    if why:
        fewer = more.epochs < had.epochs
        free = [value for key, value in _FREE.items() if any(part.startswith(key) for part in why)]
        later = f"; one that starts with {' '.join(free)} may be given more epochs later" if free else ""
        raise RunExistsError(
            f"{folder}: training.epochs: got {more.epochs}, it was started with {had.epochs}; {' and '.join(why)}"
            f"{'' if fewer else ' depends on it' if len(why) == 1 else ' depend on it'}: "
            f"start again with --overwrite, or choose another folder with --out"
            f"{later}"
        )
    return True


_FREE = {  # by the key that depends on the number of epochs, the override that does not
    "training.schedule": "training.schedule=piecewise",
    "training.drop_path": "training.drop_path=0",
    "training.validate_every": "training.validate_every=1",
}


def _train_once(
    run: Run,
    config: RunConfig,
    architecture: Architecture,
    context: JobContext,
    progress: Progress,
    ranks: Ranks,
) -> None:
    from robust_nas.nets import ModelDescription
    from robust_nas.training.loop import train as train_network

    options = config.training
    dataset, device = context.dataset, context.device
    images, validation = context.images, context.validation
    mean, std = context.normalisation
    with session(run, context, ranks):
        network = untrained_network(architecture, options, context, config.seed)
        distribute(network, config.batch_norm, ranks)
        before = _explanation(options, network, validation)
        outcome = train_network(
            run,
            network,
            images.to(device),
            validation.to(device),
            options,
            config.data.augment,
            seed=config.seed,
            checkpoint_seconds=config.checkpoint_seconds,
            progress=progress,
            ranks=ranks,
        )
        if before:
            network.load_state_dict(outcome.state, strict=False)  # the auxiliary head is not kept
        after = _explanation(options, network, validation) if before else {}
    made = {
        "recipe": config.name,
        "seed": config.seed,
        "loss": as_recipe(options.loss),
        "epoch": outcome.epoch,  # from 0, as in metrics.jsonl; people are shown it from 1
        "validation_clean": outcome.clean,
        "validation_robust": outcome.robust,
        "validation_attack": as_recipe(options.validation_attack),
        "dataset": dataset.name,
        "dataset_checksum": dataset.checksum,
    }
    description = ModelDescription(
        input_shape=dataset.shape, class_names=dataset.class_names, mean=mean, std=std, made_by=made
    )
    validated = min(len(validation), options.validation_images or len(validation))
    explained = {key: {"before": value, "after": after[key]} for key, value in before.items()}
    ranks.run_on_all(
        lambda: _write(run, config, architecture, outcome, description, explained, (len(images), validated))
    )


def _explanation(options: Training, network: nn.Module, validation: Images) -> dict[str, Any]:
    """Return what the loss has to show of a network on the first validation images, in plain values."""
    import torch

    device = next(network.parameters()).device
    few = validation.subset(torch.arange(min(EXPLAINED_IMAGES, len(validation))))
    return options.loss.explanation(network, few.float().to(device), few.labels.to(device))


def _write(
    run: Run,
    config: RunConfig,
    architecture: Architecture,
    outcome: TrainingOutcome,
    description: ModelDescription,
    explained: dict[str, Any],
    counts: tuple[int, int],
) -> None:
    """Writes the model folder; `counts` of images that were trained on and validated with.

    `explained` is what the loss shows of the network before and after, by keys of the training's record.
    """
    from robust_nas.nets import save_model
    from robust_nas.nets.model import ARCHITECTURE, DESCRIPTION, WEIGHTS

    options = config.training
    attack = options.validation_attack
    save_model(run.folder, architecture, outcome.state, description)
    caption = (
        f"{architecture.name}: {options.loss.label} training on {counts[0]} images of "
        f"{description.made_by['dataset']}, seed {config.seed}; validation: {attack.label}, "
        f"{attack.norm} eps {attack.eps:.4g}, {counts[1]} images"
    )
    records, folder = run.records(), run.folder / "figures"
    artifacts = [ARCHITECTURE, DESCRIPTION, WEIGHTS]
    if explained:
        write_json(run.folder / EXPLANATION, explained)
        artifacts.append(EXPLANATION)
    own = [figure.stem for figure in figures.due_figures("training", explained)]
    with figures.optional("training"):
        figures.plot_training(
            records, folder / "training", best_epoch=outcome.epoch, attack=attack.label, caption=caption
        )
    figures.draw_figures("training", explained, folder, about=caption)
    cost = count(architecture, description.input_shape, len(description.class_names))
    result = {
        **description.made_by,
        "params": cost.params,
        "macs": cost.macs,
        "seconds": round(outcome.seconds, 1),
        "warnings": doubts(config),
    }
    run.finish(result, artifacts, figures=("training", *own))


def _draw_own(run: Run, config: RunConfig, architecture: Architecture) -> None:
    """Draw the figures that the config asks for, from what a finished training recorded."""
    if config.figures:
        made, options = trained_record(run.folder), config.training
        attack = options.validation_attack
        about = (
            f"{architecture.name}: {options.loss.label} training on {made['dataset']}, seed {made['seed']}; "
            f"validation: {attack.label}, {attack.norm} eps {attack.eps:.4g}"
        )
        explained = run.folder / EXPLANATION
        record = {
            **(read_json(explained) if explained.is_file() else {}),
            "records": run.records(),
            "best_epoch": made["epoch"],
            "validation_attack": attack.label,
        }
        figures.draw_own("training", record, run.folder / "figures", about=about, figures=config.figures)
