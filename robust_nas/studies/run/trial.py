"""Run one trial of a study: train a network by the recipe with one seed, attack it, measure it.

`Trial` is everything that decides the outcome, and its hash is the trial's name: the same content is the same trial,
in every study and on every worker. A worker calls `run_trial`.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from robust_nas.config import Options, check, to_dict, tree_hash
from robust_nas.data.options import DataOptions
from robust_nas.evaluation.options import EvaluationOptions, Step
from robust_nas.extension import ExtensibleJob, placeless
from robust_nas.records import Shape, read_record
from robust_nas.run_folder import CHECKPOINT, Run, write_json
from robust_nas.spaces import AnyArchitecture
from robust_nas.studies.config import Metrics, Seed
from robust_nas.studies.run.journal import VERSION
from robust_nas.training import Training
from robust_nas.user_code import allow_code, allowed_files
from robust_nas.workflows.config import EvaluationConfig, JobConfig
from robust_nas.workflows.context import JobContext, choose_device, refuse_precision, session

if TYPE_CHECKING:
    from robust_nas.data import Dataset
    from robust_nas.evaluation.report import Evaluation
    from robust_nas.studies.run.measure import Measured

FUNCTION = f"{__name__}:run_trial"
NEEDED = (
    "torch._dynamo",  # the first optimizer imports it
    "robust_nas.evaluation.protocol",
    "robust_nas.studies.run.measure",
    "robust_nas.training.loop",
)
HEX = frozenset("0123456789abcdefABCDEF")
MODEL, OUTCOME = "model", "outcome.json"
_GAINS: Shape = [{"stage": str, "log_gain": float, "log_gain_rms": float}]
_EPOCH: Shape = {"epoch": int, "loss": float, "train_accuracy": float, "robust?": (float, None)}
MEASURED: Shape = {  # what is read of `outcome.json`
    "images": int,
    "attacks": [str],
    "verdict": str,
    "findings_version?": int,
    "chance?": float,
    "dataset": str,
    "dataset_checksum": str,
    "outcomes": {"clean": str, "robust": str, "stable": str, "attacked?": str},
    "train_images": int,
    "measures": {str: float},
    "lip_stages": {"initial": _GAINS, "trained": _GAINS},
    "curve": [_EPOCH],
    "device": str,
    "training_seconds?": float,
}


class Trial(Options):
    """Everything that decides a trial; `split_seed` is the study's: of splits, image order and the attacks on them."""

    version: Literal[1] = VERSION
    architecture: AnyArchitecture
    training: Training
    data: DataOptions
    evaluation: EvaluationOptions
    steps: tuple[Step, ...]  # the attacks as the suite's file had them
    metrics: Metrics
    split_seed: Seed
    seed: Seed  # of the weights, the order of the images and the training attacks

    @property
    def nameless(self) -> Self:
        """Return the trial without the architecture's own name, which decides nothing."""
        nameless = self.architecture.model_copy(update={"name": "trial"})
        return self.model_copy(update={"architecture": nameless})

    @property
    def id(self) -> str:
        """Return 16 hex digits of the content; neither the architecture's name nor the images' place is part of it."""
        return tree_hash(placeless(to_dict(self.nameless)))


class TrialJob(ExtensibleJob):
    """The config of a trial's model folder; with `config` in it `robust-nas evaluate` attacks the model again."""

    config: EvaluationConfig
    trial: Trial


def run_trial(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the outcome of the trial in `payload`; its model stays in `<folder>/model`, where it is resumed.

    payload: as `payload_of` makes it. The trial is named after its folder: another version may hash it otherwise.
    """
    with allow_code(payload["code"]):
        trial = check(Trial, payload["trial"], f"trial {folder.name}")
        setting = JobConfig(
            name=f"trial-{folder.name}",
            seed=trial.split_seed,
            device=payload["device"],
            threads=payload["threads"],
            checkpoint_seconds=payload["checkpoint_seconds"],
            data=trial.data,
        )
        return _run(trial, setting, folder)


def prepare(payload: dict[str, Any]) -> None:
    """Import what a trial needs and read the dataset of the one in `payload`, for all workers that are then forked.

    Runs no code of the user's own: it may touch a GPU.
    """
    for module in NEEDED:
        importlib.import_module(module)
    trial = payload["trial"]
    data = check(DataOptions, trial["data"], "data")
    _dataset(data.model_dump_json(), trial["split_seed"])


def payload_of(trial: Trial, setting: JobConfig, device: str) -> dict[str, Any]:
    """Return the plain values that travel to a worker: the trial, where and how it runs, and the user's own code."""
    return {
        "trial": to_dict(trial),
        "device": device,
        "threads": setting.threads,
        "checkpoint_seconds": setting.checkpoint_seconds,
        "code": [str(path) for path in allowed_files()],
    }


def _run(trial: Trial, setting: JobConfig, folder: Path) -> dict[str, Any]:
    dataset = _dataset(trial.data.model_dump_json(), trial.split_seed)
    context = JobContext(setting, dataset, choose_device(setting.device))
    refuse_precision(trial.training.precision, context.device)
    again = EvaluationConfig(
        name=setting.name, seed=trial.split_seed, data=trial.data, evaluation=trial.evaluation
    )
    with Run(folder / MODEL, TrialJob(config=again, trial=trial.nameless), "resume") as run:
        if run.finished:
            return read_record(run.folder, OUTCOME, MEASURED)
        with session(run, context):
            outcome = _measured(run, trial, folder.name, context)
        write_json(run.folder / OUTCOME, outcome)
        run.finish({"trial": folder.name}, [OUTCOME])
        (run.folder / CHECKPOINT).unlink(missing_ok=True)  # the largest file of a trial, and of no more use
    return outcome


@functools.lru_cache(maxsize=2)
def _dataset(options: str, seed: int) -> Dataset:
    """Return the dataset, read once by a worker that runs many trials on it."""
    from robust_nas.data import load_dataset

    return load_dataset(DataOptions.model_validate_json(options), seed=seed)


def _measured(run: Run, trial: Trial, name: str, context: JobContext) -> dict[str, Any]:
    """Return the outcome: train, attack by the protocol, measure; the model is saved into the run's folder."""
    from robust_nas.data import random_indices
    from robust_nas.evaluation import follow_protocol
    from robust_nas.nets import ModelDescription, build_network, save_model
    from robust_nas.studies.run.measure import measure, stage_gains
    from robust_nas.training.loop import train

    dataset, device = context.dataset, context.device
    images, validation = context.images, context.validation
    mean, std = context.normalisation
    shape: Any = {"input_shape": dataset.shape, "classes": dataset.classes, "mean": mean, "std": std}

    def fresh() -> Any:
        auxiliary = trial.training.auxiliary_weight > 0 and trial.architecture.supports_auxiliary_head
        return build_network(trial.architecture, **shape, auxiliary=auxiliary, seed=trial.seed).to(device)

    trained = train(
        run,
        fresh(),
        images.to(device),
        validation.to(device),
        trial.training,
        trial.data.augment,
        seed=trial.seed,
        checkpoint_seconds=context.config.checkpoint_seconds,
    )
    records = run.records(_EPOCH)
    options = trial.evaluation.model_copy(update={"suite": None, "attacks": trial.steps})
    network = build_network(trial.architecture, **shape).to(device)
    network.load_state_dict(trained.state)
    network.eval()
    found = follow_protocol(network, dataset.test, options, seed=trial.split_seed)
    order = random_indices(len(dataset.test), options.images, trial.split_seed)
    chosen = order[: found.robust.images]
    test = dataset.test.subset(chosen).to(device)
    measured = measure(network, test, images.to(device), trial.metrics, seed=trial.split_seed)
    description = ModelDescription(
        input_shape=dataset.shape,
        class_names=dataset.class_names,
        mean=mean,
        std=std,
        made_by={
            "trial": name,
            "seed": trial.seed,
            "epoch": trained.epoch,
            "dataset": dataset.name,
            "dataset_checksum": dataset.checksum,
        },
    )
    save_model(run.folder, trial.architecture, trained.state, description)
    initial = stage_gains(fresh().eval(), test, trial.metrics, trial.split_seed)
    return {
        **_outcome(trial, name, dataset, found, measured, chosen.tolist()),
        "epoch": trained.epoch,
        "train_images": len(images),
        "measures": {"train_accuracy": records[-1]["train_accuracy"], **measured.figures},
        "lip_stages": {"initial": initial, "trained": measured.stages},
        "curve": [
            {key: record[key] for key in ("epoch", "loss", "train_accuracy", "clean", "robust")}
            for record in records
        ],
        "device": str(device.type),
        "training_seconds": trained.seconds,
    }


def _outcome(
    trial: Trial, name: str, dataset: Dataset, found: Evaluation, measured: Measured, chosen: list[int]
) -> dict[str, Any]:
    """Return what is known per image: an answer is robust where no attack of the suite or the metrics changes it."""
    from robust_nas.evaluation.accuracy import chance_of
    from robust_nas.evaluation.verdict import FINDINGS_VERSION
    from robust_nas.spaces import count

    broken = {index for row in found.rows for index in row.broken_indices}
    wrong = set(found.clean_wrong_indices)
    clean = [index not in wrong for index in chosen]
    stable, attacked = measured.stable.tolist(), measured.attacked_right.tolist()
    answers = zip(chosen, clean, attacked, stable, strict=True)
    robust = [right and index not in broken and also and same for index, right, also, same in answers]
    cost = count(trial.architecture, dataset.shape, dataset.classes)
    return {
        "trial": name,
        "seed": trial.seed,
        "params": cost.params,
        "macs": cost.macs,
        "attacks": [*(row.label for row in found.rows), trial.metrics.attack.label],
        "verdict": found.verdict.status,
        "findings_version": FINDINGS_VERSION,
        "images": len(chosen),
        "chance": chance_of(dataset.test.labels[chosen], dataset.classes),
        "dataset": dataset.name,
        "dataset_checksum": dataset.checksum,
        "outcomes": {
            "clean": pack(clean),
            "robust": pack(robust),
            "stable": pack(stable),
            "attacked": pack(attacked),
        },
    }


def pack(values: list[bool]) -> str:
    """Return booleans as hex digits, the first one the highest bit of the first digit; `unpack` reverses it."""
    padded = [*values, *[False] * (-len(values) % 4)]
    digits = (padded[i : i + 4] for i in range(0, len(padded), 4))
    return "".join(f"{sum(bit << (3 - place) for place, bit in enumerate(four)):x}" for four in digits)


def unpack(text: str, count: int) -> NDArray[np.bool_]:
    """Return the first `count` booleans `[count]` that `pack` wrote. Raises `ValueError` for fewer, or other digits."""
    if not set(text) <= HEX:
        raise ValueError(f"{text[:40]!r} are no hex digits")
    if not count <= 4 * len(text) < count + 4:
        raise ValueError(f"{len(text)} hex digits hold no {count} values")
    whole = np.frombuffer(bytes.fromhex(text + "0" * (len(text) % 2)), dtype=np.uint8)
    return np.unpackbits(whole)[:count].astype(bool)
