"""Put a defence around a model as a job: calibrate it on validation images, save the model with it, and count.

    <folder>/model/         a model folder: the same architecture and weights, the defence, and the model's recipe
    <folder>/defence.json   method (options), label, rule (samples, abstains), values, calibration, certifies,
                            not_exported, validation (part, dataset, checksum, images, seed), undefended and defended
                            (accuracy; of an abstaining defence false_alarms, the share rejected), model, network and
                            digest (the digests without and with the defence), warnings

The job sees the validation split alone, which is cut from the training set: it asks for no test image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from robust_nas import user_code
from robust_nas.config import Count, existing_file, to_dict
from robust_nas.data import DataOptions
from robust_nas.defences import DEFENCES, Calibration, Defence, StoredDefence
from robust_nas.distributed import refuse_several
from robust_nas.errors import ConfigError
from robust_nas.extension import ExtensibleJob
from robust_nas.records import Shape, read_record
from robust_nas.run_folder import CONFIG, RECIPE, Mode, Progress, Run, silent, write_atomic, write_json
from robust_nas.workflows.context import (
    JobContext,
    context_unless_finished,
    load_context,
    session,
    threads_of,
)
from robust_nas.workflows.defence_config import DefenceConfig, refuse_rule, split_warnings
from robust_nas.workflows.deployed_rule import defence_of
from robust_nas.workflows.evaluate import refuse_misfit
from robust_nas.workflows.places import Written, model_in, of_model
from robust_nas.workflows.report.at_end import reporting
from robust_nas.workflows.training_images import refuse_other_images_than_training

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.defences import Defended
    from robust_nas.nets import Model

MODEL, RECORD = "model", "defence.json"
BATCH = 256
_SHARE: Shape = {"count": int, "of": int, "share": float, "low": float, "high": float}
_COUNTED: Shape = {"accuracy": _SHARE, "false_alarms": (_SHARE, None)}
RECORDED: Shape = {
    "name": str,
    "label": str,
    "method": {"name": str},
    "rule": {"samples": (int, None), "abstains": bool},
    "values": {str: float},
    "calibration": ({"part": str, "images": int}, None),
    "certifies": bool,
    "not_exported": (str, None),
    "validation": {"part": str, "dataset": str, "checksum": str, "images": int, "seed": int},
    "undefended": _COUNTED,
    "defended": _COUNTED,
    "model": str,
    "network": str,
    "digest": str,
    "warnings": [{"text": str, "advice": str}],
}


class DefendJob(ExtensibleJob):
    """What a defended model depends on: data, defence, and everything that decides the answers of the model.

    Nothing of it can be extended; the places of the model and of the images may change.
    """

    name: str
    seed: int
    data: DataOptions
    method: Annotated[Defence, DEFENCES.field()]
    images: Count | None = Field(default=None, exclude_if=lambda images: images is None)
    model: str  # its place as seen from the folder
    digest: str  # of the undefended model (`nets/digest.py`)


def defend(
    config: DefenceConfig,
    model: Path | str,
    out: Path | None = None,
    *,
    module: nn.Module | None = None,
    mode: Mode = "new",
    progress: Progress = silent,
    context: JobContext | None = None,
    allow_code: Sequence[Path | str] = (),
    other_data: bool = False,
) -> Written:
    """Put a defence around the model in a folder; return the content of `defence.json`, and its `folder`.

    Results go to `defended/` in the run folder of the model (see `places.py`); the defended model is the model folder
    `<folder>/model`. `module` is the user's own, as it was before it was compressed, where the folder holds no
    architecture.

    The defence is calibrated and put on before the folder is touched: what it refuses costs nothing that was there.
    Raises `ConfigError` for a model that has a defence, and for images for which the defence is not defined, and
    `DataError` for other images than those of the training, unless `other_data` says that they are meant.
    """
    from robust_nas.nets import read_model

    refuse_several("defend")
    with user_code.allow_code(allow_code):
        model_folder = model_in(model)
        plain = read_model(model_folder, module=module)
        _refuse_defended(plain, config.method)
        refuse_rule(model_folder)
        wanted = _job(config, "", plain.digest)
        folder, job = of_model("defend", wanted, model_folder, out, mode, label=config.method.label)
        context = context_unless_finished(config, folder, mode, context, job)
        calibrated: Calibrated | None = None
        if context is not None:
            dataset = context.dataset
            refuse_misfit(plain.description, dataset, model_folder)
            refuse_other_images_than_training(plain, dataset, other_data)
            config.method.refuse_images(dataset.shape, dataset.classes)
            calibrated = calibrate(config, plain, context)
        with reporting(folder), Run(folder, job, mode, recipe=config) as run:
            if not run.finished:
                context = context or load_context(config)
                calibrated = calibrated or calibrate(config, plain, context)
                with session(run, JobContext(config, context.dataset, context.device)):
                    made = _defend(config, plain, context, calibrated, folder, module, progress)
                said = [*split_warnings(model_folder, config), *_warnings(config.method)]
                record = {"name": config.name, "model": job.model, **made, "warnings": said}
                write_json(folder / RECORD, record)
                counted = {key: made[key]["accuracy"]["share"] for key in ("undefended", "defended")}
                names = sorted(path.name for path in (folder / MODEL).iterdir() if path.is_file())
                run.finish(counted, [RECORD, *(f"{MODEL}/{name}" for name in names)])
            return Written(read_record(folder, RECORD, RECORDED), folder)


def _refuse_defended(model: Model, method: Defence) -> None:
    """Raise `ConfigError` for a model that has a defence already."""
    defence = defence_of(model)
    if defence is not None:
        raise ConfigError(
            f"{model.folder}: has the defence {defence.label} already; put {method.label} around the undefended model"
        )


@dataclass(frozen=True)
class Calibrated:
    """A defence around the network, and the validation images that it was calibrated on; all are on one device."""

    images: Tensor
    labels: Tensor
    values: dict[str, float]
    defended: Defended


def calibrate(config: DefenceConfig, plain: Model, context: JobContext) -> Calibrated:
    """Return the defence around the network of `plain`, calibrated; nothing is written.

    Raises `ConfigError` for a network, or too few images, for which the defence is not defined.
    """
    from robust_nas.attacks.engine import seeded_globally
    from robust_nas.nets import inference_state

    method, device = config.method, context.device
    validation = context.validation.draw(config.images or len(context.validation), config.seed)
    network = plain.network.to(device).eval()
    images, labels = validation.float().to(device), validation.labels.to(device)
    with threads_of(config), seeded_globally(config.seed, device):  # a calibration may draw, and a module
        found = method.calibrate(network, images, labels)
        values = StoredDefence.of(method, found, None, network="").values  # refuses what is no number
        defended = method.wrap(network, values).to(device)
    inference_state(defended)  # refuses tensors of one name
    return Calibrated(images, labels, values, defended)


def _defend(
    config: DefenceConfig,
    plain: Model,
    context: JobContext,
    calibrated: Calibrated,
    folder: Path,
    module: nn.Module | None,
    progress: Progress,
) -> dict[str, Any]:
    """Count, save the model folder and return what `defence.json` holds of it."""
    method, dataset, digest = config.method, context.dataset, plain.digest
    images, labels, defended = calibrated.images, calibrated.labels, calibrated.defended
    before = _counted(plain.network, images, labels, config.seed, "undefended", progress)
    after = _counted(defended, images, labels, config.seed, "defended", progress)
    used = Calibration(dataset=dataset.name, checksum=dataset.checksum, images=len(labels), seed=config.seed)
    stored = StoredDefence.of(
        method, calibrated.values, used if method.calibrates else None, digest, defended.own_state()
    )
    found = _saved(plain, stored, defended, folder / MODEL, module)
    return {
        "schema_version": 1,
        "method": to_dict(method),
        "label": method.label,
        "rule": {"samples": method.inference_samples, "abstains": method.abstains},
        "values": stored.values,
        "calibration": to_dict(stored.calibration) if stored.calibration else None,
        "certifies": method.certifies,
        "not_exported": method.not_exported,
        "validation": to_dict(used),
        "undefended": before,
        "defended": after,
        "network": digest,
        "digest": found.digest,
    }


def _job(config: DefenceConfig, model: str, digest: str) -> DefendJob:
    own = {key: getattr(config, key) for key in ("name", "seed", "data", "method", "images")}
    return DefendJob(**own, model=model, digest=digest)


def _saved(
    plain: Model, stored: StoredDefence, defended: Defended, folder: Path, module: nn.Module | None
) -> Model:
    """Write the model folder and return the model as it is read from there."""
    from robust_nas.nets import inference_state, read_model, save_model

    description = plain.description.model_copy(update={"defence": stored})
    save_model(folder, plain.architecture, inference_state(defended), description)
    # By which an evaluation of the folder is known: data and protocol are those of the undefended model.
    for name in (RECIPE, CONFIG):
        source = existing_file(plain.folder / name) if plain.folder else None
        if source is not None:
            write_atomic(folder / name, source.read_bytes())
    return read_model(folder, module=module)


def _counted(
    network: nn.Module, images: Tensor, labels: Tensor, seed: int, job: str, progress: Progress
) -> dict[str, Any]:
    """Return the share of images that are answered right, and of an abstaining rule the share that is rejected."""
    import torch

    from robust_nas.attacks import Predictor
    from robust_nas.evaluation.accuracy import judge
    from robust_nas.workflows.attack_run import share

    predictor, right, rejected = Predictor.of(network), 0, 0
    batches = list(torch.split(torch.arange(len(labels)), BATCH))
    for number, rows in enumerate(batches):
        progress(f"defend: {job}", number, len(batches))
        judged = judge(predictor, images[rows], labels[rows], seed=seed + number)
        right += int((judged.finite & (judged.logits.argmax(1) == labels[rows])).sum())
        rejected += int(judged.rejected.sum())
    progress(f"defend: {job}", len(batches), len(batches))
    return {
        "accuracy": share(right, len(labels)),
        "false_alarms": share(rejected, len(labels)) if predictor.abstains else None,
    }


def _warnings(method: Defence) -> list[dict[str, str]]:
    """Return what a user of the defended model should know."""
    if not method.trained_with:
        return []
    return [
        {
            "text": f"the network is used as it was trained; {method.label} is meant for one that was trained with it",
            "advice": f"train with {method.trained_with}",
        }
    ]
