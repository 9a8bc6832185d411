"""Compress a trained model: build candidates, choose one on validation data, evaluate it once on the test set.

Every network that the steps of a compression make is measured on the validation split (clean, and under the recipe's
validation attack); the choice is made there. The test set is used once by the original, by the chosen network and by
its baselines, through the protocol of `evaluate` and the compressed networks themselves.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from robust_nas import figures, user_code
from robust_nas.compression import Candidate, Compression, CompressionContext, OriginalModel
from robust_nas.compression.context import ORIGINAL
from robust_nas.data import DataOptions
from robust_nas.distributed import refuse_several
from robust_nas.errors import ConfigError
from robust_nas.evaluation.options import EvaluationOptions, Step, suite_names
from robust_nas.evaluation.report import SAID, SCORE, THREAT, VERDICT
from robust_nas.extension import ExtensibleJob
from robust_nas.nets.model_card import copy_card
from robust_nas.records import Shape, read_json, read_record
from robust_nas.run_folder import (
    CONFIG,
    ENVIRONMENT,
    NOT_DRAWN,
    RESULT,
    Mode,
    Progress,
    Run,
    silent,
    write_atomic,
    write_json,
)
from robust_nas.training import Training
from robust_nas.workflows.compress_measures import describe, speed, verdicts
from robust_nas.workflows.compress_modules import refuse_foreign
from robust_nas.workflows.compress_steps import make_candidates, refuse_out_of_reach
from robust_nas.workflows.config import CompressionConfig, EvaluationConfig, doubts
from robust_nas.workflows.context import (
    JobContext,
    context_unless_finished,
    load_context,
    refuse_attacks,
    refuse_early,
    refuse_few_images,
    refuse_precision,
    session,
)
from robust_nas.workflows.deployed_rule import read_undefended
from robust_nas.workflows.evaluate import refuse_misfit
from robust_nas.workflows.evaluation_record import Origin, validation_warnings
from robust_nas.workflows.places import Written, model_in, of_model, of_module
from robust_nas.workflows.report.at_end import reporting
from robust_nas.workflows.training_images import CHECKSUM, refuse_other_images_than_training

_MEDIAN: Shape = {"median_ms": float}
NETWORK: Shape = {
    "label": str,
    "method": str,
    "baseline_of": (str, None),
    "params": int,
    "macs": int,
    "bytes": int,
    "latency_ms": {str: {"1": _MEDIAN, "16": _MEDIAN}},
    "validation": {"clean": float, "robust": float, "images": int, "attack": str},
    "test": ({"clean": SCORE, "robust": SCORE, "verdict": VERDICT}, None),
}
COMPRESSED: Shape = {  # what is read of `compression.json`
    "name": str,
    "dataset": str,
    "threat_model": THREAT,
    "suite": str,
    "seed": int,
    "chosen": str,
    "within_loss": bool,
    "max_loss": float,
    "not_measured": [str],
    "networks": [NETWORK, ...],
    **SAID,
}


class CompressJob(ExtensibleJob):
    """What the result of a compression depends on: data, recipe, protocol and steps, and the model.

    `steps` are the attacks as the suite's file had them. Records of earlier versions have none: those of a shipped
    suite, or with a list of their own, get them; what a user's file held then is not known.
    """

    name: str
    seed: int
    data: DataOptions
    training: Training
    evaluation: EvaluationOptions
    compression: Compression
    model: str  # its place as seen from the folder
    digest: str  # of everything that decides its answers (`nets/digest.py`)
    steps: tuple[Step, ...]
    # Of the models that attacks are transferred from, in their order; without any the record has no such key.
    surrogate_digests: tuple[str, ...] = Field(default=(), exclude_if=lambda digests: not digests)

    @model_validator(mode="before")
    @classmethod
    def _give_known_steps(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "steps" in values:
            return values
        evaluation = EvaluationOptions.model_validate(values.get("evaluation"))
        known = evaluation.suite is None or evaluation.suite in suite_names()
        return {**values, "steps": evaluation.steps} if known else values

    @classmethod
    def of(cls, config: CompressionConfig, model: str, digest: str) -> Self:
        """Return the record of a compression of the model at `model`.

        Raises `CheckpointError` for a surrogate that is no model.
        """
        from robust_nas.evaluation.surrogates import digests, read_surrogates

        own = {
            key: getattr(config, key) for key in cls.model_fields.keys() & type(config).model_fields.keys()
        }
        return cls(
            **own,
            model=model,
            digest=digest,
            steps=config.evaluation.steps,
            surrogate_digests=digests(read_surrogates(config.evaluation)),
        )


def compress(
    config: CompressionConfig,
    model: Path | str,
    out: Path | None = None,
    *,
    weights: Path | None = None,
    mode: Mode = "new",
    progress: Progress = silent,
    context: JobContext | None = None,
    allow_code: Sequence[Path | str] = (),
    other_data: bool = False,
) -> Written:
    """Compress a model; return the content of `compression.json`, and its `folder`.

    `model` is a model folder, or a run folder with one in `model/` (results go to `compressed/` in the run folder; see
    `places.py`), or names a function of the user's own, as `path.py:function`, which builds a torch module
    (`results/<name>-compressed`). Such a module takes images `[B, C, H, W]` in 0..1 and gives logits; `weights` is its
    safetensors file, and what comes of it is loaded with `load_model(folder, module=build())`.

    The chosen network is the model folder `<folder>/model`. Raises `CheckpointError` for a model that cannot be read,
    `CompressionError` for a budget out of reach, and `DataError` for other images than those that a model folder was
    trained on, unless `other_data` says that they are meant.
    """
    with user_code.allow_code(allow_code):
        if user_code.is_code(str(model)):
            return _compress_module(config, str(model), weights, out, mode, progress, context)
        return _compress_folder(config, model_in(model), out, mode, progress, context, other_data)


def _compress_folder(
    config: CompressionConfig,
    model_folder: Path,
    out: Path | None,
    mode: Mode,
    progress: Progress,
    context: JobContext | None,
    other_data: bool,
) -> Written:
    model = read_undefended(model_folder)
    folder, job = place_of(config, model_folder, model.digest, out, mode)
    original = OriginalModel(model, model_folder)
    return _run(config, job, original, folder, mode, progress, context, other_data)


def place_of(
    config: CompressionConfig, model_folder: Path, digest: str, out: Path | None, mode: Mode
) -> tuple[Path, CompressJob]:
    """Return the folder and the record of the compression of a model of this digest."""
    job = CompressJob.of(config, "", digest)
    return of_model("compress", job, model_folder, out, mode, label=config.compression.label)


def _compress_module(
    config: CompressionConfig,
    module: str,
    weights: Path | None,
    out: Path | None,
    mode: Mode,
    progress: Progress,
    context: JobContext | None,
) -> Written:
    from robust_nas.nets import Model, ModelDescription
    from robust_nas.nets.user_module import load_module, module_digest, source_of

    path, name = source_of(module)
    if weights is not None and Path(weights).is_dir():
        raise ConfigError(
            f"{weights}: is a folder; the weights of the uncompressed module, a file, are needed"
        )
    network = load_module(module, weights)
    wanted = CompressJob.of(config, "", module_digest(network, path))
    label = config.compression.label
    folder, job = of_module("compress", wanted, module, out, config.name, mode, label=label)
    if context is None:
        refuse_early(folder, mode)
        context = load_context(config)
    dataset = context.dataset
    trains = any(step.trains for step in config.compression.steps)
    refuse_foreign(network, context.images, dataset.classes, module, weights, trains=trains)
    spec, channels = f"{path.name}:{name}", dataset.shape[0]
    description = ModelDescription(
        input_shape=dataset.shape,
        class_names=dataset.class_names,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        made_by={"module": spec, "dataset": dataset.name, CHECKSUM: dataset.checksum},
        module=spec,
    )
    original = OriginalModel(Model(network, None, description), None, module, weights)
    return _run(config, job, original, folder, mode, progress, context)


def _run(
    config: CompressionConfig,
    job: CompressJob,
    original: OriginalModel,
    folder: Path,
    mode: Mode,
    progress: Progress,
    shared: JobContext | None,
    other_data: bool = False,
) -> Written:
    """Return the content of `compression.json`, which is made where the run is not finished."""
    refuse_several("compress")
    shared = context_unless_finished(config, folder, mode, shared)
    if shared is not None:
        refuse_misfit(original.model.description, shared.dataset, original.folder or Path(original.spec))
        refuse_other_images_than_training(original.model, shared.dataset, other_data)
        refuse_attacks(EvaluationConfig.of(config), shared.dataset)
        if any(step.trains for step in config.compression.steps):
            refuse_precision(config.training.precision, shared.device)
            refuse_few_images(config.training, shared)
            config.training.loss.refuse_network(original.model.network)
        command = f"robust-nas compress {shlex.quote(str(original.folder))} " if original.folder else ""
        shape, steps = original.model.description.input_shape, config.compression.steps
        refuse_out_of_reach(original.model.network, shape, steps, command)
    with reporting(folder), Run(folder, job, mode, recipe=config) as run:
        if not run.finished:
            shared = shared or load_context(config)
            with session(run, JobContext(config, shared.dataset, shared.device)):
                context = compression_context(config, original, shared, folder, mode, progress)
                tree = _compress(context, config, shared)
            write_json(folder / "compression.json", {"name": config.name, "model": job.model, **tree})
        if not run.finished or NOT_DRAWN in read_json(folder / RESULT):
            tree = read_json(folder / "compression.json", COMPRESSED)
            drawn, stems = _draw(tree, folder, config)
            result = {"chosen": tree["chosen"], "within_loss": tree["within_loss"]}
            models = [f"model/{name}" for name in DELIVERED if (folder / "model" / name).exists()]
            run.finish(result, ["compression.json", *drawn, *models], stems)
        return Written(read_record(folder, "compression.json", COMPRESSED), folder)


def compression_context(
    config: CompressionConfig,
    original: OriginalModel,
    shared: JobContext,
    folder: Path,
    mode: Mode,
    progress: Progress,
) -> CompressionContext:
    """Return what the steps work with; the validation images are those that the training loop draws with this seed."""
    from robust_nas.training.validation import validation_images

    validation = validation_images(shared.validation, config.training.validation_images, config.seed)
    return CompressionContext(
        original=original,
        config=config,
        recipe=config.training,
        augmentation=config.data.augment,
        images=shared.images.to(shared.device),
        validation=validation.to(shared.device),
        device=shared.device,
        seed=config.seed,
        checkpoint_seconds=config.checkpoint_seconds,
        root=folder,
        mode=mode,
        progress=progress,
    )


def _compress(context: CompressionContext, config: CompressionConfig, shared: JobContext) -> dict[str, Any]:
    """Return the content of `compression.json`."""
    made = [candidate for _, candidate in make_candidates(context, config.compression.steps)]
    networks = {ORIGINAL: context.original.model.network}
    networks |= {candidate.label: context.read(candidate).network for candidate in made}
    rows = [describe(context, None, networks[ORIGINAL])]
    for number, candidate in enumerate(made, 1):
        context.progress("compress: validate", number, len(made), candidate.label)
        rows.append(describe(context, candidate, networks[candidate.label]))
    milliseconds, missing = speed(context, networks)
    chosen, within = choose(rows, config.compression.max_loss)
    declared = declared_labels(rows, chosen, config.compression.test)
    evaluation = EvaluationConfig.of(config)
    found, said = verdicts(context, evaluation, shared, [one for one in made if one.label in declared])
    for row in rows:
        row["latency_ms"] = milliseconds[row["label"]]
        row["test"] = found.get(row["label"])
    _deliver(next(one.folder for one in made if one.label == chosen), context.root)
    return {
        "schema_version": 1,
        "dataset": shared.dataset.name,
        "threat_model": config.evaluation.threat_model.model_dump(mode="json"),
        "suite": config.evaluation.suite or "of its own",
        "seed": config.seed,
        "chosen": chosen,
        "within_loss": within,
        "max_loss": config.compression.max_loss,
        "not_measured": missing,
        "tested": said["tested"],
        "warnings": [
            *said["warnings"],
            *validation_warnings(_origin(context.original), shared.dataset),
            *(
                {"text": doubt, "advice": "one threat_model for both compares like with like"}
                for doubt in doubts(config)
            ),
        ],
        "networks": rows,
    }


def _origin(original: OriginalModel) -> Origin:
    return Origin() if original.folder else Origin.of_module(original.spec, original.weights)


def choose(rows: list[dict[str, Any]], max_loss: float) -> tuple[str, bool]:
    """Return the label of the network with the fewest MACs within the allowed loss, True; else the most robust, False.

    The first row is the original. Baselines are there for comparison and are not chosen.
    """
    least = rows[0]["validation"]["robust"] - max_loss
    own = [row for row in rows[1:] if row["baseline_of"] is None]
    within = [row for row in own if row["validation"]["robust"] >= least]
    if within:
        return str(min(within, key=lambda row: (row["macs"], row["params"]))["label"]), True
    return str(max(own, key=lambda row: (row["validation"]["robust"], -row["macs"]))["label"]), False


def declared_labels(rows: list[dict[str, Any]], chosen: str, which: str) -> set[str]:
    """Return the labels that are evaluated on the test set in addition to the original."""
    if which == "all":
        return {row["label"] for row in rows[1:]}
    # Everything that it was made from too, back to the original.
    made_from = {row["label"]: row["made_from"] for row in rows}
    shown, label = {chosen}, made_from[chosen]
    while label is not None:
        shown.add(label)
        label = made_from[label]
    return {row["label"] for row in rows[1:] if row["label"] in shown or row["baseline_of"] in shown}


EVALUATED = tuple(f"evaluation/{name}" for name in (CONFIG, ENVIRONMENT, RESULT, "evaluation.json"))
DELIVERED = ("config.yaml", "recipe.yaml", "architecture.yaml", "model.json", "model.safetensors")


def _deliver(source: Path, folder: Path) -> None:
    """Copy the chosen model folder to `model`, so that it has one name, with the evaluation that exports record."""
    target = folder / "model"
    (target / "evaluation").mkdir(parents=True, exist_ok=True)
    for name in (*DELIVERED, *EVALUATED):
        if (source / name).is_file():
            write_atomic(target / name, (source / name).read_bytes())
    copy_card(source, target)


def _draw(tree: dict[str, Any], folder: Path, config: CompressionConfig) -> tuple[list[str], list[str]]:
    """Draw the comparison and the figures of the step that made the chosen network.

    Return the paths of the step's figures, and the stems of the others, with the step's label where its own failed.
    """
    threat = tree["threat_model"]
    eps = f"{threat['norm']} eps {threat['eps']:.4g}"
    about = f"{tree['name']} on {tree['dataset']}, {eps}, seed {tree['seed']}"
    asked: list[figures.Figure | str] = [*figures.FIGURES.built_in, *config.figures]
    figures.draw_figures("compression", tree, folder / "figures", about=about, figures=asked)
    stems = [figure.stem for figure in figures.due_figures("compression", tree, asked)]
    row = next(row for row in tree["networks"] if row["label"] == tree["chosen"])
    own = Candidate(row["label"], row["method"], folder / row["folder"], row["made_from"])
    last = row["method"].rpartition("+")[2]
    step = next(step for step in config.compression.steps if step.label == last)
    with figures.optional(step.label):
        return step.draw(own, folder, about), stems
    return [], [*stems, step.label]
