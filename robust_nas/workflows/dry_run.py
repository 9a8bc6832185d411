"""What a verb would do, and about how long it would take, without writing anything.

A search and a training are begun as they would be, in a run without a folder, and stopped after a few steps: their
seconds times the number of steps are the estimate. A one-shot search is measured in its first and in its last epoch,
whose steps may differ. Evaluations are estimated by the seconds of a pass of the validation attack, times their passes
at most: attacks skip images that are broken. Memory is the highest that this process had in all of it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from robust_nas.config import Options, expand_path
from robust_nas.environment import peak_memory
from robust_nas.run_folder import Progress
from robust_nas.spaces import AnyArchitecture, Architecture, count, sample
from robust_nas.workflows.candidate_tasks import CANDIDATES, context_of_search, network_size
from robust_nas.workflows.config import CompressionConfig, EvaluationConfig, RunConfig
from robust_nas.workflows.context import (
    JobContext,
    Onlooker,
    load_context,
    refuse_attacks,
    refuse_cell_options,
    refuse_few_images,
    refuse_precision,
    refuse_recipe,
    threads_of,
)
from robust_nas.workflows.memory import refuse_memory, refuse_memory_of_run
from robust_nas.workflows.places import model_in, of_config
from robust_nas.workflows.reference import REFERENCE, reference_of, refuse_reference
from robust_nas.workflows.untrained import untrained_network
from robust_nas.workflows.verb_stages import attack_passes, evaluation_stages, training_passes

if TYPE_CHECKING:
    import torch
    from torch import nn

    from robust_nas.search import OneShotStrategy
    from robust_nas.training import Training

STEPS, SECONDS = 4, 20.0  # that are timed of a loop, at most, after the first step
LONG = "candidates take different times"


@dataclass(frozen=True)
class PlannedJob:
    """One job of a verb. `seconds` is an estimate, None where there is none; `about` says what it is based on."""

    job: str
    about: str
    images: int | None = None
    batch_size: int | None = None
    epochs: int | None = None
    steps: int | None = None  # in all epochs
    network: str | None = None
    params: int | None = None
    macs: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class DryRun:
    """The jobs of a verb in their order, where they would write, and the highest memory of the measurement."""

    verb: str
    folder: str
    exists: bool
    device: str
    jobs: tuple[PlannedJob, ...]
    memory_bytes: int

    @property
    def seconds(self) -> float:
        """Return the sum of the estimates."""
        return sum(job.seconds or 0.0 for job in self.jobs)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        unknown = [job.job for job in self.jobs if job.seconds is None]
        return {**asdict(self), "estimate": {"seconds": self.seconds, "without": unknown}}


class _EnoughError(Exception):
    """Enough steps were timed."""


class _Nowhere(Onlooker):
    """A run without a folder: nothing is read, and what it is given is dropped."""

    def load_checkpoint(self) -> None:
        """Return None: there is no checkpoint."""


@dataclass
class _Steps:
    """A progress that times the steps of the first job it hears of, and ends it."""

    total: int = 0
    began: float = 0.0
    times: list[float] = field(default_factory=list)

    def __call__(self, job: str, done: int, total: int, note: str = "") -> None:
        now = time.perf_counter()
        self.total = total
        self.began = self.began or now
        self.times.append(now)
        if len(self.times) > STEPS or now - self.began > SECONDS or done >= total:
            raise _EnoughError

    @property
    def seconds(self) -> float | None:
        """Return the seconds of a step, without the first; None where there is but one."""
        gaps = len(self.times) - 1
        return (self.times[-1] - self.times[0]) / gaps if gaps > 0 else None


def _timed(begin: Callable[[Progress], object]) -> _Steps:
    """Return the steps of a loop that is begun with a progress, and stopped."""
    steps = _Steps()
    with contextlib.suppress(_EnoughError):
        begin(steps)
    return steps


def dry_run_search(config: RunConfig, out: Path | None = None, *, seeds: int | None = None) -> DryRun:
    """Return what `robust-nas search` would do. Raises the errors with which it would refuse to start."""
    from robust_nas.workflows.search import refuse_unfit

    context = load_context(config)
    refuse_unfit(config, context)
    with threads_of(config):
        jobs = [_search(config, context, seeds or config.search.seeds)]
    if config.search.followed:
        jobs.append(PlannedJob("search: controls", "controls and finalists are trained and evaluated"))
    return _made("search", of_config("search", out, config.name), context, jobs)


def dry_run_train(config: RunConfig, architecture: Architecture, out: Path | None = None) -> DryRun:
    """Return what `robust-nas train` would do. Raises the errors with which it would refuse to start."""
    architecture = config.network.made_of(architecture)
    refuse_cell_options(config.training, architecture)
    context = load_context(config)
    refuse_precision(config.training.precision, context.device)
    refuse_few_images(config.training, context)
    refuse_memory(architecture, config.training, context)
    with threads_of(config):
        job = _train(
            config,
            architecture,
            context,
            architecture.name,
            untrained_network(architecture, config.training, context, config.seed),
        )
    return _made("train", of_config("train", out, config.name), context, [job])


def dry_run_run(config: RunConfig, out: Path | None = None) -> DryRun:
    """Return what `robust-nas run` would do, a random architecture of the space in place of the one to be found."""
    from robust_nas.workflows.search import refuse_unfit

    context, space = load_context(config), config.space.load()
    refuse_unfit(config, context)
    refuse_recipe(config.training, space, context, config.network)
    refuse_memory_of_run(config, context)
    refuse_reference(config, context)
    refuse_attacks(config, context.dataset)
    likely = config.network.made_of(sample(space, config.seed, size=network_size(config, space)))
    with threads_of(config):
        network = untrained_network(likely, config.training, context, config.seed)
        jobs = [
            _search(config, context, config.search.seeds),
            _train(config, likely, context, "a random one of the space", network),
            *_evaluation(EvaluationConfig.of(config), context, network),
        ]
        known = reference_of(config)
        if known is not None:
            network = untrained_network(known, config.training, context, config.seed)
            own = [
                _train(config, known, context, known.name, network),
                *_evaluation(EvaluationConfig.of(config), context, network),
            ]
            jobs += [replace(job, job=f"{REFERENCE}: {job.job}") for job in own]
    if config.compression is not None:
        jobs += _compression(config.compression.steps)
    if config.search.followed:
        jobs.append(PlannedJob("search: controls", "controls and finalists are trained and evaluated"))
    return _made("run", of_config("run", out, config.name), context, jobs)


def dry_run_compress(config: CompressionConfig, model_folder: Path, out: Path | None = None) -> DryRun:
    """Return what `robust-nas compress` would do to the model in a folder."""
    from robust_nas.workflows.compress import place_of
    from robust_nas.workflows.deployed_rule import read_undefended
    from robust_nas.workflows.evaluate import refuse_misfit

    model_folder = model_in(model_folder)
    model = read_undefended(model_folder)
    folder, _ = place_of(config, model_folder, model.digest, out, "new")
    context = load_context(config)
    refuse_misfit(model.description, context.dataset, model_folder)
    refuse_attacks(EvaluationConfig.of(config), context.dataset)
    network = model.network.to(context.device)
    with threads_of(config):
        jobs = _compression(config.compression.steps)
        for job in _evaluation(EvaluationConfig.of(config), context, network):
            jobs.append(replace(job, about=f"{job.about}; of each network that is tested"))
    if model.architecture is not None:
        cost = _size(model.architecture, context)
        jobs[0] = replace(jobs[0], params=cost["params"], macs=cost["macs"], network=model.architecture.name)
    return _made("compress", folder, context, jobs)


def _made(verb: str, folder: Path, context: JobContext, jobs: Sequence[PlannedJob]) -> DryRun:
    folder = expand_path(folder)
    memory = peak_memory(context.device)
    return DryRun(verb, str(folder), folder.exists(), str(context.device), tuple(jobs), memory)


def _search(config: RunConfig, context: JobContext, seeds: int) -> PlannedJob:
    from robust_nas.search.one_shot.loop import search

    images = len(context.images)
    times = f", {seeds} seeds" if seeds > 1 else ""
    if config.search.kind != "one-shot":
        candidates = dict(config.search).get("evaluations")
        about = f"{config.search.label}: {candidates} candidates{times}; {LONG}"
        return PlannedJob("search", about, images, steps=candidates)
    strategy, space = cast("OneShotStrategy", config.search), config.space.load()
    run = _Nowhere(Path("dry-run"), config)
    found = []
    for epoch in dict.fromkeys((0, strategy.epochs - 1)):

        def begin(progress: Progress, epoch: int = epoch) -> object:
            made = context_of_search(run, config, space, context, Path(CANDIDATES), progress=progress)
            return search(strategy, replace(made, checkpoint_seconds=float("inf")), first_epoch=epoch)

        found.append(_timed(begin))
    speeds = [one.seconds for one in found if one.seconds is not None]
    total = found[0].total * seeds
    seconds = sum(speeds) / len(speeds) * total if speeds else None
    said = " and ".join(f"{speed:.3g}" for speed in speeds)
    about = f"{strategy.label}{times}; measured: {said} s a step in the first and the last epoch"
    return PlannedJob(
        "search",
        about if speeds else f"{strategy.label}{times}; too few steps to measure",
        images,
        strategy.batch_size,
        strategy.epochs,
        total,
        seconds=seconds,
    )


def _size(architecture: AnyArchitecture, context: JobContext) -> dict[str, int]:
    cost = count(architecture, context.dataset.shape, context.dataset.classes)
    return {"params": cost.params, "macs": cost.macs}


def _train(
    config: RunConfig, architecture: Architecture, context: JobContext, name: str, network: nn.Module
) -> PlannedJob:
    from robust_nas.training.loop import train

    options: Training = config.training
    run = _Nowhere(Path("dry-run"), config)
    steps = _timed(
        lambda progress: train(
            run,
            network,
            context.images.to(context.device),
            context.validation.to(context.device),
            options,
            config.data.augment,
            seed=config.seed,
            checkpoint_seconds=float("inf"),
            progress=progress,
        )
    )
    images, validation = len(context.images), len(context.validation)
    seconds, about = None, f"{options.loss.label}; too few steps to measure"
    if steps.seconds is not None:
        every, alone = (training_passes(options, images, each) for each in (validation, 0))
        share = every / alone if every and alone else 1.0  # of validation on top
        seconds = steps.seconds * steps.total * share
        about = f"{options.loss.label}; measured: {steps.seconds:.3g} s a step, and validation by its passes"
    return PlannedJob(
        "train",
        about,
        images,
        options.batch_size,
        options.epochs,
        steps.total,
        name,
        **_size(architecture, context),
        seconds=seconds,
    )


def _evaluation(config: EvaluationConfig, context: JobContext, network: nn.Module) -> list[PlannedJob]:
    """Return the parts of an evaluation, by the seconds of a pass of an attack on a batch of test images."""
    options, test = config.evaluation, context.dataset.test
    images = min(options.images or len(test), len(test))
    batch = min(options.batch_size, images)
    pass_seconds = _seconds_of_a_pass(
        network, options.threat_model.norm, options.threat_model.eps, context, batch
    )
    return [
        PlannedJob(
            stage.job,
            "at most: images that are broken before are skipped"
            if stage.passes
            else "its passes are not known",
            images,
            batch,
            seconds=None if stage.passes is None else stage.passes * pass_seconds,
        )
        for stage in evaluation_stages(config, context.dataset)
    ]


def _seconds_of_a_pass(network: nn.Module, norm: Any, eps: float, context: JobContext, batch: int) -> float:
    """Return the seconds of a pass of one image, of three steps of PGD; those of a first attack are left out."""
    import torch

    from robust_nas.attacks import PGD

    part = context.dataset.test.subset(torch.arange(batch)).to(context.device)
    attack = PGD(norm=norm, eps=eps or 1 / 255, steps=3)
    passes = attack_passes(attack) or 1
    for _ in range(2):
        began = time.perf_counter()
        attack(network.eval(), part.float(), part.labels, torch.Generator(context.device).manual_seed(0))
        _wait_for(context.device)
        seconds = time.perf_counter() - began
    return seconds / passes / batch


def _wait_for(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _compression(steps: Sequence[Options]) -> list[PlannedJob]:
    return [
        PlannedJob(
            f"compress: {dict(step)['name']}",
            "trains networks again; not measured"
            if getattr(step, "trains", False)
            else "seconds; not measured",
        )
        for step in steps
    ]
