"""What every job does before it starts, once: device, dataset, splits, normalisation, checks; and the record of it all.

A context is loaded by the first job of a run and passed down to the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_nas.config import absolute_path, existing_file, read_yaml
from robust_nas.distributed import ALONE, Ranks, launched, local_rank
from robust_nas.environment import environment, keep_freed_memory
from robust_nas.errors import AttackError, ConfigError, DataError
from robust_nas.extension import extends
from robust_nas.logger import refuse_missing
from robust_nas.records import ENVIRONMENT, read_environment
from robust_nas.run_folder import CONFIG, RECIPE, Mode, Run, is_complete, refuse_occupied, write_json
from robust_nas.workflows.config import EvaluationConfig, JobConfig, RunConfig
from robust_nas.workflows.network_size import NetworkSize

if TYPE_CHECKING:
    import torch
    from torch import nn

    from robust_nas.config import Options
    from robust_nas.data import Dataset, Images
    from robust_nas.spaces import Architecture, CellSpace, Layout
    from robust_nas.training import Loss, Training


@dataclass(frozen=True)
class JobContext:
    """What a job works on: the dataset, the device, and what follows from the config's section `data` and its seed."""

    config: JobConfig
    dataset: Dataset
    device: torch.device
    handed: Dataset | None = None  # in full, of images that Python code handed over (`workflows/own_data.py`)

    @cached_property
    def _split(self) -> tuple[Images, Images]:
        from robust_nas.data import split

        train = self.dataset.train
        kept, held_out = split(train.labels, self.config.data.validation, self.config.seed)
        return train.subset(kept), train.subset(held_out)

    @property
    def images(self) -> Images:
        """Return the images that search and training may see."""
        return self._split[0]

    @cached_property
    def images_on_device(self) -> Images:
        """Return the same images on the device: one object, by whose identity what was measured on them is known."""
        return self.images.to(self.device)

    @property
    def validation(self) -> Images:
        """Return the images by which choices are made, such as the epoch that is kept; a search never sees them."""
        return self._split[1]

    @cached_property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and deviation of each channel for the first layer: the training set's, or 0 and 1."""
        from robust_nas.data import channel_statistics

        if self.config.data.normalise == "dataset":
            return channel_statistics(self.dataset.train)
        channels = self.dataset.shape[0]
        return (0.0,) * channels, (1.0,) * channels

    def of_seed(self, seed: int) -> JobContext:
        """Return the context of the same config with another seed; a limited training set is then another choice."""
        config = self.config.model_copy(update={"seed": seed})
        if self.config.data.limit is None:
            return JobContext(config, self.dataset, self.device, self.handed)
        if self.handed is None:
            return load_context(config)
        return JobContext(config, self.handed.limited(config.data.limit, seed), self.device, self.handed)


def load_context(config: JobConfig) -> JobContext:
    """Return the context of a job; nothing is written.

    Raises `ConfigError` or `DataError` for what would otherwise fail hours later.
    """
    config.data.location()  # a missing path is answered before torch is imported
    refuse_missing(getattr(config, "loggers", ()))
    from robust_nas.data import load_dataset

    device = choose_device(config.device)
    context = JobContext(config, load_dataset(config.data, seed=config.seed), device)
    _ = context.images  # a validation split that cannot be cut is refused now
    return context


def context_unless_finished(
    config: JobConfig, folder: Path, mode: Mode, given: JobContext | None = None, job: Options | None = None
) -> JobContext | None:
    """Return the context of a job, checked before its folder is touched; None where the folder is finished already.

    One with a figure that failed is not: it is drawn again; nor is one that `job` extends. A folder that the mode does
    not allow is refused before the images are read: `RunExistsError`, also where the finished folder is of another job.
    Raises `ConfigError` for a `given` context that was loaded for other images, another split or another device.
    """
    if given is not None:
        refuse_missing(getattr(config, "loggers", ()))
        _refuse_other_context(given, config)
        if mode == "resume":
            refuse_other_images(folder, given.dataset)
        return given
    refuse_early(folder, mode)
    finished = mode == "resume" and is_complete(folder) and not (job and extends(folder / CONFIG, job))
    if finished and not _are_elsewhere(config, folder):
        return None
    context = load_context(config)
    if mode == "resume":
        refuse_other_images(folder, context.dataset)
    return None if finished else context


def _are_elsewhere(config: JobConfig, folder: Path) -> bool:
    """Return whether the images of a config are in another place than those of the run in a folder."""
    path = existing_file(folder / RECIPE) or folder / CONFIG
    data = read_yaml(path).get("data")
    stored = data.get("path") if isinstance(data, Mapping) else None
    return isinstance(data, Mapping) and config.data.path != (stored and absolute_path(stored))


def refuse_early(folder: Path, mode: Mode) -> None:
    """Raise `RunExistsError` for a folder that the mode does not allow, before the images are read."""
    if launched() == 1:  # else the first rank may be in it already
        with contextlib.suppress(OSError):  # said where the folder is opened
            refuse_occupied(folder, mode)


def _refuse_other_context(context: JobContext, config: JobConfig) -> None:
    """Raise `ConfigError` for a context of which a job by this config would record what it did not work on."""
    for key in ("data", "seed"):
        got, wanted = getattr(context.config, key), getattr(config, key)
        if got != wanted:
            raise ConfigError(
                f"context: was loaded for {key} {got!r}, the config has {wanted!r}; "
                "load it for this config with load_context(config)"
            )
    device = choose_device(config.device)
    if (device.type, device.index or 0) != (context.device.type, context.device.index or 0):
        raise ConfigError(
            f"context: was loaded for device {str(context.device)!r}, the config's device {config.device!r} is "
            f"{str(device)!r}; load it for this config with load_context(config)"
        )


def refuse_precision(precision: str, device: torch.device) -> None:
    """Raise `ConfigError` for bf16 on a GPU without it."""
    import torch

    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError(f"precision: bf16 is not supported by {torch.cuda.get_device_name(device)}")


def refuse_loss(loss: Loss, key: str, context: JobContext) -> None:
    """Raise `ConfigError` for a loss that these classes, images of this size, or the number of ranks do not allow."""
    loss.refuse_ranks(launched(), key)
    _, height, width = context.dataset.shape
    if context.dataset.classes < loss.least_classes:
        raise ConfigError(
            f"{key}: {loss.label} needs at least {loss.least_classes} classes with these options, "
            f"{context.dataset.name} has {context.dataset.classes}"
        )
    if min(height, width) < loss.least_side:
        raise ConfigError(
            f"{key}: {loss.label} needs images of at least {loss.least_side} x {loss.least_side} pixels with these "
            f"options, {context.dataset.name} has {height} x {width}"
        )


def refuse_attacks_in(options: Options, key: str, context: JobContext) -> None:
    """Raise `ConfigError` for an attack among options that is not defined for so few classes or such small images."""
    from robust_nas.attacks import attacks_in

    for place, attack in attacks_in(options, key):
        try:
            attack.refuse_undefined(context.dataset.classes, context.dataset.shape)
        except AttackError as error:
            raise ConfigError(f"{place}: {error}") from None


def refuse_few_images(training: Training, context: JobContext) -> None:
    """Raise `ConfigError` where the training images make no batch of two, or are too small for the loss.

    Raises `DataError` where the loss or a hook does not fit them, such as extra images of another shape.
    """
    refuse_loss(training.loss, "training.loss", context)
    training.loss.refuse_images(context.images.labels, context.dataset.classes)
    refuse_attacks_in(training, "training", context)
    for hook in training.hooks:
        hook.refuse_data(context.dataset.shape, context.dataset.classes)
    ALONE.refuse_small(min(training.batch_size, len(context.images)), "training.batch_size")


def refuse_auxiliary_head(training: Training, layout: Layout, dataset: Dataset) -> None:
    """Raise `ConfigError` when the recipe asks for an auxiliary head on feature maps that are too small for it.

    Whether the family of architectures may have one at all is asked by `refuse_cell_options`.
    """
    side = min(dataset.shape[1:])
    for _ in layout.reductions:
        side = -(-side // 2)
    if training.auxiliary_weight and side < 4:
        raise ConfigError(
            f"training.auxiliary_weight: got {training.auxiliary_weight}; the auxiliary head needs feature "
            f"maps of at least 4x4 behind the reductions, {dataset.name} leaves {side}x{side}; allowed here: 0"
        )


def refuse_cell_options(training: Training, architecture: Architecture | type[Architecture]) -> None:
    """Raise `ConfigError` when the recipe asks for what the architecture's family does not support."""
    if architecture.learns_by:
        raise ConfigError(
            f"the network is {architecture.called}, which `robust-nas {architecture.learns_by}` makes and no training; "
            "to train a network on a learned set, name its file: data.name=npz data.path=FOLDER/learned.npz"
        )
    if training.loss.mixes_inside and not architecture.supports_mixing:
        raise ConfigError(
            f"training.loss: {training.loss.label} mixes the outputs of layers; the network is "
            f"{architecture.called}, which has nothing but its images to mix; allowed for it: layers 0"
        )
    training.loss.refuse_architecture(architecture)
    training.step.refuse_architecture(architecture)
    for key, supported, what in (
        ("auxiliary_weight", architecture.supports_auxiliary_head, "auxiliary head"),
        ("drop_path", architecture.supports_drop_path, "drop path"),
    ):
        value = getattr(training, key)
        if value and not supported:
            raise ConfigError(
                f"training.{key}: got {value}; the network is {architecture.called}, "
                f"which has no {what}; allowed for it: 0"
            )
    for hook in training.hooks:
        hook.refuse_architecture(architecture)


def refuse_recipe(training: Training, space: CellSpace, context: JobContext, network: NetworkSize) -> None:
    """Raise `ConfigError` for a recipe by which no network of the space, made into `network`, can be trained here."""
    refuse_precision(training.precision, context.device)
    refuse_few_images(training, context)
    refuse_cell_options(training, network.family(space.family))
    refuse_auxiliary_head(training, space.layout, context.dataset)


def refuse_attacks(
    config: RunConfig | EvaluationConfig, dataset: Dataset, *, new_models: bool = True
) -> None:
    """Raise `AttackError` for an attack that is not defined for so few classes or such small images.

    Likewise for one that is for a single model alone, where the job attacks models that it has yet to make; for a
    surrogate that does not fit the images, and `CheckpointError` for one that is no model.
    """
    from robust_nas.evaluation.surrogates import read_surrogates, refuse_misfits

    if not len(dataset.test):
        raise ConfigError(f"{dataset.name}: has no test images to evaluate on; hand them over as test=...")
    for step in config.evaluation.steps:
        if step.suits(dataset.classes):
            step.attack.refuse_undefined(dataset.classes, dataset.shape, config.evaluation.deployed.abstains)
            if new_models:
                step.attack.refuse_new_models()
    refuse_misfits(read_surrogates(config.evaluation), dataset.shape, dataset.classes)


def refuse_other_images(folder: Path, dataset: Dataset) -> None:
    """Raise `DataError` when the run in `folder` was started on other images."""
    before = read_environment(folder).get("dataset_checksum")
    if before is not None and not dataset.has_checksum(before):
        raise DataError(
            f"{folder}: was started on other images of {dataset.name}; their checksum was {before}"
        )


class Onlooker(Run):
    """The run of another process, in a job of several: it touches no file, and drops what it is given.

    What is read from the folder is asked of the process that holds it.
    """

    def __init__(self, folder: Path, config: Options) -> None:
        self.folder, self.config = Path(folder), config

    def __exit__(self, *_: object) -> None:
        """Nothing was opened."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Drops the record."""

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Drops the state."""


def open_run(ranks: Ranks, folder: Path, job: Options, mode: Mode, recipe: Options | None = None) -> Run:
    """Return the run of rank 0; the other ranks get one that touches no file. An error of rank 0 is raised on all."""
    opened: list[Run] = []

    def open_here() -> None:
        opened.append(Run(folder, job, mode, recipe=recipe))

    ranks.run_on_all(open_here)
    return opened[0] if opened else Onlooker(folder, job)


def distribute(network: nn.Module, batch_norm: str, ranks: Ranks) -> None:
    """Prepare a network for several ranks: its batch norms see the whole batch, unless the config says otherwise."""
    from robust_nas.layers.batch_norm import synchronise

    if ranks.count > 1 and batch_norm == "synchronised":
        synchronise(network)


@contextlib.contextmanager
def threads_of(config: JobConfig) -> Iterator[None]:
    """Set torch's threads as the config says, inside."""
    import torch

    threads = torch.get_num_threads()
    try:
        if config.threads != "auto":
            torch.set_num_threads(config.threads)
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def session(run: Run, context: JobContext, ranks: Ranks = ALONE) -> Iterator[None]:
    """Set threads as the config says, inside; and write `environment.json` of the run.

    Raises `DataError` when the run was started on other images.
    """
    import torch

    config, dataset, device = context.config, context.dataset, context.device
    if ranks.first:
        refuse_other_images(run.folder, dataset)
    with threads_of(config):
        record = environment(
            config,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            threads=torch.get_num_threads(),
            dataset=dataset.name,
            dataset_checksum=dataset.checksum,
            images={"train": len(dataset.train), "test": len(dataset.test)},
            splits={"seed": config.seed, "validation": config.data.validation, "search_halves": 0.5},
            ranks=ranks.count,
        )
        if ranks.first and not run.finished:  # of a finished one, a figure is drawn again at most
            write_json(run.folder / ENVIRONMENT, record)
        yield


def choose_device(name: str) -> torch.device:
    """Return the device that a config's `device` means; each of several ranks gets the GPU of its number.

    The process keeps freed memory from then on (`keep_freed_memory`). Raises `ConfigError` for a GPU that is not there.
    """
    import torch

    keep_freed_memory()

    if launched() > 1 and (name == "cuda" or (name == "auto" and torch.cuda.is_available())):
        name = f"cuda:{local_rank()}"
    elif launched() > 1 and name.startswith("cuda:"):
        raise ConfigError(
            f"device: got {name!r} for {launched()} ranks; allowed for several: auto, cpu, cuda"
        )
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    seen = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= seen:
        allowed = ", ".join(["auto", "cpu", *(f"cuda:{index}" for index in range(seen))])
        raise ConfigError(f"device: got {name!r}; this torch sees {seen} GPUs; allowed here: {allowed}")
    return device
