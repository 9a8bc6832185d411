"""One trial of a study: a network trained by the recipe with one seed, attacked, and measured.

`Trial` is everything that decides the outcome, and its hash is the trial's name: the same content is the same trial,
in whichever study, on whichever worker. `run_trial` is what a worker calls.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robust_nas.config import Options, check, config_hash, to_dict
from robust_nas.data.options import DataOptions
from robust_nas.evaluation.options import EvaluationOptions, Step
from robust_nas.runs import CHECKPOINT, Run, read_json, write_json
from robust_nas.spaces import AnyArchitecture
from robust_nas.studies.config import Metrics, Seed
from robust_nas.studies.journal import VERSION
from robust_nas.training import Training
from robust_nas.workflows.config import EvaluationConfig, Setting
from robust_nas.workflows.material import (
    Material,
    choose_device,
    normalisation,
    refuse_precision,
    training_split,
)

if TYPE_CHECKING:
    from robust_nas.data import Dataset

FUNCTION = f"{__name__}:run_trial"
MODEL, OUTCOME = "model", "outcome.json"


class Trial(Options):
    """What decides a trial; `split_seed` is the study's, of the splits, the image order and the attacks on them."""

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
    def id(self) -> str:
        """16 hex digits of the content; how the architecture is called is not part of it."""
        nameless = self.architecture.model_copy(update={"name": "trial"})
        return config_hash(self.model_copy(update={"architecture": nameless}))


class TrialJob(Options):
    """What the model folder of a trial was made from; `config` is how `robust-nas evaluate` attacks it again."""

    config: EvaluationConfig
    trial: Trial


def run_trial(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The outcome of the trial that `payload` describes; its model stays in `<folder>/model`, where it is resumed.

    payload: `trial`, the tree of a `Trial`; `device`; `threads`; `checkpoint_seconds`.
    """
    trial = check(Trial, payload["trial"], f"trial {folder.name}")
    setting = Setting(
        name=f"trial-{trial.id}",
        seed=trial.split_seed,
        device=payload["device"],
        threads=payload["threads"],
        checkpoint_seconds=payload["checkpoint_seconds"],
        data=trial.data,
    )
    from robust_nas.workflows.material import session

    material = Material(
        _dataset(trial.data.model_dump_json(), trial.split_seed), choose_device(setting.device)
    )
    refuse_precision(trial.training.precision, material.device)
    nameless = trial.model_copy(
        update={"architecture": trial.architecture.model_copy(update={"name": "trial"})}
    )
    name, seed = f"trial-{trial.id}", trial.split_seed
    again = EvaluationConfig(name=name, seed=seed, data=trial.data, evaluation=trial.evaluation)
    with Run(folder / MODEL, TrialJob(config=again, trial=nameless), "resume") as run:
        if run.finished:
            return read_json(run.folder / OUTCOME)
        with session(run, setting, material):
            outcome = _measured(run, trial, setting, material)
        write_json(run.folder / OUTCOME, outcome)
        run.finish({"trial": trial.id}, [OUTCOME])
        (run.folder / CHECKPOINT).unlink(missing_ok=True)  # the largest file of a trial, and of no more use
    return outcome


@functools.lru_cache(maxsize=2)
def _dataset(options: str, seed: int) -> Dataset:
    """The dataset, read once by a worker that runs many trials on it."""
    from robust_nas.data import load_dataset

    return load_dataset(DataOptions.model_validate_json(options), seed=seed)


def _measured(run: Run, trial: Trial, setting: Setting, material: Material) -> dict[str, Any]:
    from robust_nas.evaluation.protocol import evaluation_order, follow_protocol
    from robust_nas.nets import ModelDescription, build_network, save_model
    from robust_nas.spaces import count
    from robust_nas.studies.measure import measure, stage_gains
    from robust_nas.training.loop import train

    dataset, device = material.dataset, material.device
    mean, std = normalisation(setting, dataset)
    classes = dataset.classes

    def fresh() -> Any:
        return build_network(
            trial.architecture,
            input_shape=dataset.shape,
            classes=classes,
            mean=mean,
            std=std,
            auxiliary=trial.training.auxiliary_weight > 0 and trial.architecture.supports_auxiliary_head,
            seed=trial.seed,
        ).to(device)

    images, validation = training_split(setting, dataset)
    trained = train(
        run,
        fresh(),
        images.to(device),
        validation.to(device),
        trial.training,
        trial.data.augment,
        seed=trial.seed,
        checkpoint_seconds=setting.checkpoint_seconds,
    )
    records = run.records()
    options = trial.evaluation.model_copy(update={"suite": None, "attacks": trial.steps})
    network = build_network(
        trial.architecture, input_shape=dataset.shape, classes=classes, mean=mean, std=std
    ).to(device)
    network.load_state_dict(trained.state)
    network.eval()
    found = follow_protocol(network, dataset.test, options, seed=trial.split_seed)
    common = found.robust.images
    order = evaluation_order(len(dataset.test), trial.split_seed, options.images)
    broken = {index for row in found.rows for index in row.broken_indices}
    wrong = set(found.clean_wrong_indices)
    chosen = order[:common]
    measured = measure(
        network,
        dataset.test.subset(chosen).to(device),
        images.to(device),
        trial.metrics,
        seed=trial.split_seed,
    )
    clean = [index not in wrong for index in chosen.tolist()]
    attacked = measured.attacked_right.tolist()
    robust = [
        right and index not in broken and also and stable
        for index, right, also, stable in zip(
            chosen.tolist(), clean, attacked, measured.stable.tolist(), strict=True
        )
    ]
    description = ModelDescription(
        input_shape=dataset.shape,
        class_names=dataset.class_names,
        mean=mean,
        std=std,
        made_by={"trial": trial.id, "seed": trial.seed, "epoch": trained.epoch, "dataset": dataset.name},
    )
    save_model(run.folder, trial.architecture, trained.state, description)
    cost = count(trial.architecture, dataset.shape, classes)
    initial = stage_gains(
        fresh().eval(), dataset.test.subset(chosen).to(device), trial.metrics, trial.split_seed
    )
    return {
        "trial": trial.id,
        "seed": trial.seed,
        "params": cost.params,
        "macs": cost.macs,
        "epoch": trained.epoch,
        "attacks": [*(row.label for row in found.rows), trial.metrics.attack.label],
        "verdict": found.verdict.status,
        "images": common,
        "dataset": dataset.name,
        "dataset_checksum": dataset.checksum,
        "train_images": len(images),
        "outcomes": {"clean": pack(clean), "robust": pack(robust), "stable": pack(measured.stable.tolist())},
        "measures": {"train_accuracy": records[-1]["train_accuracy"], **measured.figures},
        "lip_stages": {"initial": initial, "trained": measured.stages},
        "curve": [
            {key: record[key] for key in ("epoch", "loss", "train_accuracy", "clean", "robust")}
            for record in records
        ],
        "device": str(device.type),
        "training_seconds": trained.seconds,
    }


def pack(values: list[bool]) -> str:
    """Booleans as hex digits, the first one the highest bit of the first digit; `unpack` reverses it."""
    padded = [*values, *[False] * (-len(values) % 4)]
    digits = (padded[i : i + 4] for i in range(0, len(padded), 4))
    return "".join(f"{sum(bit << (3 - place) for place, bit in enumerate(four)):x}" for four in digits)


def unpack(text: str, count: int) -> list[bool]:
    """The first `count` booleans of what `pack` made. Raises `ValueError` where there are fewer, or other digits."""
    bits = [bool(int(digit, 16) >> (3 - place) & 1) for digit in text for place in range(4)]
    if not count <= len(bits) < count + 4:
        raise ValueError(f"{len(text)} hex digits hold no {count} values")
    return bits[:count]


def trial_tree(trial: Trial) -> dict[str, Any]:
    """The plain tree that travels to a worker."""
    return to_dict(trial)
