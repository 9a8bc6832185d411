"""An evaluation as a job: from a model folder, or any torch module, to `evaluation.json` and its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from pydantic import Field

from robust_nas import figures, user_code
from robust_nas.config import Options, expand_path
from robust_nas.data import DataOptions
from robust_nas.distributed import refuse_several
from robust_nas.errors import ConfigError
from robust_nas.evaluation.options import EvaluationOptions, Step
from robust_nas.evaluation.report import RECORDED
from robust_nas.extension import ExtensibleJob
from robust_nas.records import read_json, read_record
from robust_nas.run_folder import Mode, Progress, Run, silent, write_json
from robust_nas.stages import PER_CENT, announce
from robust_nas.workflows.config import EvaluationConfig, RunConfig
from robust_nas.workflows.context import (
    JobContext,
    context_unless_finished,
    load_context,
    refuse_attacks,
    session,
)
from robust_nas.workflows.deployed_rule import with_own_rule
from robust_nas.workflows.evaluation_record import Origin, recorded
from robust_nas.workflows.more_evaluation import (
    answered,
    earlier_images,
    extended,
    history,
    protocol_of,
)
from robust_nas.workflows.places import Written, model_in, of_model, of_module
from robust_nas.workflows.report.at_end import reporting
from robust_nas.workflows.training_images import refuse_other_images_than_training, training_checksum
from robust_nas.workflows.verb_stages import evaluation_stages

if TYPE_CHECKING:
    import torch

    from robust_nas.data import Dataset
    from robust_nas.evaluation import Evaluation
    from robust_nas.nets.model import ModelDescription


class EvaluateJob(ExtensibleJob):
    """What the result of an evaluation depends on: data, protocol, and everything that decides the model's answers."""

    seed: int
    data: DataOptions
    evaluation: EvaluationOptions
    steps: tuple[Step, ...]  # the attacks as the suite's file had them
    model: str  # its place as seen from the evaluation, so that a folder of results can be moved as a whole
    digest: str  # `nets/digest.py`
    # Of the models that attacks are transferred from, in their order; without any the record has no such key.
    surrogate_digests: tuple[str, ...] = Field(default=(), exclude_if=lambda digests: not digests)

    @property
    def protocol(self) -> EvaluationOptions:
        """Return the options with these steps, whatever the suite's file holds now."""
        return protocol_of(self.evaluation, self.steps)

    def extension_of(self, before: Self, folder: Path) -> Self | None:
        """Return the job with the images, attacks and findings of both (`workflows/more_evaluation.py`)."""
        if not self.same_but(before, "evaluation", "steps"):
            return None
        found = extended((self.evaluation, self.steps), (before.evaluation, before.steps), folder)
        return None if found is None else self.model_copy(update={"evaluation": found[0], "steps": found[1]})

    def again(self, before: Self, folder: Path) -> Self:
        """Return what the folder does now, with the findings of this job where these are more."""
        found = answered((self.evaluation, self.steps), (before.evaluation, before.steps), folder)
        return (
            before if found is None else before.model_copy(update={"evaluation": found[0], "steps": found[1]})
        )

    def recipe_of(self, recipe: Options) -> Options:
        """Return the whole config with the images, attacks and findings of this job."""
        return recipe.model_copy(update={"evaluation": self.protocol})


def run_evaluation(
    config: RunConfig | EvaluationConfig,
    model: Path | str,
    out: Path | None = None,
    *,
    weights: Path | None = None,
    mode: Mode = "new",
    progress: Progress = silent,
    context: JobContext | None = None,
    module: torch.nn.Module | None = None,
    allow_code: Sequence[Path | str] = (),
    other_data: bool = False,
) -> Written:
    """Attack a model on the test set; return the content of `evaluation.json`, and its `folder`.

    `model` is a model folder, or a run folder with one in `model/` (results go to `evaluation/` in the run folder; see
    `places.py`), or names a function of the user's own, as `path.py:function`, which builds a torch module
    (`results/<name>-evaluation`). Such a module takes images
    `[B, C, H, W]` in 0..1 and gives logits: its normalisation is inside. `weights` is its safetensors file, or the
    folder of the module as it was compressed. `module` is the user's own module where a folder was made from one.

    Images of another checksum than those that a model folder was trained on are refused with `DataError`, unless
    `other_data` says that they are meant; the record then has a warning.
    """
    config = EvaluationConfig.of(config)
    with user_code.allow_code(allow_code):
        if user_code.is_code(str(model)):
            return _evaluate_module(config, str(model), weights, out, mode, progress, context)
        return _evaluate_folder(config, expand_path(model), out, mode, progress, context, module, other_data)


def _evaluate_folder(
    config: EvaluationConfig,
    model_folder: Path,
    out: Path | None,
    mode: Mode,
    progress: Progress,
    context: JobContext | None,
    module: torch.nn.Module | None,
    other_data: bool,
) -> Written:
    from robust_nas.export.hub import refresh_card
    from robust_nas.nets import read_model

    model_folder = model_in(model_folder)
    model = read_model(model_folder, module=module)
    config = with_own_rule(config, model.network, model_folder)
    wanted = evaluate_job(config, "", model.digest)
    folder, job = of_model("evaluate", wanted, model_folder, out, mode, label=label_of(config))

    def fits(dataset: Dataset) -> None:
        refuse_misfit(model.description, dataset, model_folder)
        refuse_other_images_than_training(model, dataset, other_data)

    origin = Origin(model.description.module, checksum=training_checksum(model))
    written = _run(config, job, model.network, model.name, origin, folder, fits, mode, progress, context)
    refresh_card(model)
    return written


def _evaluate_module(
    config: EvaluationConfig,
    module: str,
    weights: Path | None,
    out: Path | None,
    mode: Mode,
    progress: Progress,
    context: JobContext | None,
) -> Written:
    from robust_nas.nets.user_module import load_module, module_digest, source_of

    path, _ = source_of(module)
    network = load_module(module, weights)
    config = with_own_rule(config, network, module)
    wanted = evaluate_job(config, "", module_digest(network, path))
    folder, job = of_module("evaluate", wanted, module, out, config.name, mode, label=label_of(config))
    origin = Origin.of_module(module, weights)
    return _run(
        config, job, network, config.name, origin, folder, lambda dataset: None, mode, progress, context
    )


def label_of(config: EvaluationConfig) -> str:
    """Return the settings of an evaluation in the name of its folder: suite or attacks, norm, eps, images."""
    own = config.evaluation
    names = [step.attack.name for step in own.steps]
    suite = Path(own.suite).stem if own.suite else "-".join(names[:3])
    images = [] if own.images is None else [str(own.images)]
    return "-".join([suite, own.threat_model.norm, f"{own.threat_model.eps:.3g}", *images])


def evaluate_job(config: EvaluationConfig, model: str, digest: str) -> EvaluateJob:
    """Return the record of an evaluation of the model at `model` with this digest.

    Raises `CheckpointError` for a surrogate that is no model.
    """
    from robust_nas.evaluation.surrogates import digests, read_surrogates

    evaluation = config.evaluation
    return EvaluateJob(
        seed=config.seed,
        data=config.data,
        evaluation=evaluation,
        steps=evaluation.steps,
        model=model,
        digest=digest,
        surrogate_digests=digests(read_surrogates(evaluation)),
    )


def _run(
    config: EvaluationConfig,
    job: EvaluateJob,
    network: torch.nn.Module,
    name: str,
    origin: Origin,
    folder: Path,
    refuse_misfit: Callable[[Dataset], None],
    mode: Mode,
    progress: Progress,
    context: JobContext | None,
) -> Written:
    refuse_several("evaluate")
    context = context_unless_finished(config, folder, mode, context, job)
    if context is not None:
        refuse_misfit(context.dataset)
        refuse_attacks(config, context.dataset, new_models=False)
    more: dict[str, Any] = {}  # of the record, what is not stored
    with reporting(folder), Run(folder, job, mode, recipe=config) as run:
        job = cast(EvaluateJob, run.config)
        config = cast(EvaluationConfig, job.recipe_of(config))
        if not run.complete:
            context = context or load_context(config)
            dataset = context.dataset
            with session(run, JobContext(config, dataset, context.device)):
                found = _evaluate(run, config, network.to(context.device), dataset, progress)
            if not run.finished:
                tree = {"model": job.model, "dataset": dataset.name, **found.to_dict()}
                tree |= {**recorded(tree, name, origin, dataset), **history(job.earlier())}
                write_json(folder / "evaluation.json", tree)
            tree = read_json(folder / "evaluation.json", RECORDED)
            more = {"examples": list(found.examples), "class_names": _output_names(dataset, found.classes)}
            about, record = _about(tree, config, name), {**tree, **more}
            figures.draw_figures("evaluation", record, folder / "figures", about=about)
            stems = [figure.stem for figure in figures.due_figures("evaluation", record)]
            result = {
                "clean": tree["clean"]["accuracy"],
                "robust": tree["robust"]["accuracy"],
                "verdict": tree["verdict"]["status"],
            }
            run.finish(result, ["evaluation.json"], figures=stems)
        tree = read_record(folder, "evaluation.json", RECORDED)
        if config.figures:
            about, record = _about(tree, config, name), {**tree, **more}
            figures.draw_own("evaluation", record, folder / "figures", about=about, figures=config.figures)
        return Written(tree, folder)


def _evaluate(
    run: Run, config: EvaluationConfig, network: torch.nn.Module, dataset: Dataset, progress: Progress
) -> Evaluation:
    from robust_nas.evaluation import Journal, follow_protocol

    def report(name: str, fraction: float) -> None:
        progress(f"evaluate: {name}", round(100 * fraction), 100, PER_CENT)

    announce(progress, evaluation_stages(config, dataset))
    log = run.record_log("evaluate")
    return follow_protocol(
        network,
        dataset.test,
        config.evaluation,
        seed=config.seed,
        journal=Journal(
            dict(log.records),
            log.append,
            earlier_images(cast(EvaluateJob, run.config).earlier(), len(dataset.test)),
        ),
        progress=report,
    )


def _output_names(dataset: Dataset, outputs: int) -> tuple[str, ...]:
    """Return a name for every output of a model, which may have more than the dataset has classes."""
    return (*dataset.class_names, *(f"output {index}" for index in range(dataset.classes, outputs)))


def _about(tree: dict[str, Any], config: EvaluationConfig, name: str) -> str:
    """Return what the figures of an evaluation have in their captions."""
    threat = config.evaluation.threat_model
    return f"{name} on {tree['dataset']}, {threat.norm} eps {threat.eps:.4g}, seed {config.seed}"


def refuse_misfit(model: ModelDescription, dataset: Dataset, folder: Path) -> None:
    """Raises `ConfigError` when a model takes images of another shape, or of other classes, than the dataset's."""
    if model.input_shape != dataset.shape:
        raise ConfigError(
            f"{folder}: takes images of shape {model.input_shape}, {dataset.name} has {dataset.shape}"
        )
    if model.class_names != dataset.class_names:
        ours, theirs = (", ".join(names[:4]) for names in (model.class_names, dataset.class_names))
        pairs = zip(model.class_names, dataset.class_names, strict=False)
        # In ASCII, because two names may look the same: letters with accents have two forms in Unicode.
        other = next((f"; {a!a} there is {b!a} here" for a, b in pairs if a != b), "")
        raise ConfigError(
            f"{folder}: tells {len(model.class_names)} classes ({ours}, ...), "
            f"{dataset.name} has {len(dataset.class_names)} ({theirs}, ...){other}"
        )
