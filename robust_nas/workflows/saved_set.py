"""Evaluate a model on a saved set: its answers on the clean images and on the adversarial ones; nothing is attacked.

On another model than the one that was attacked, this is a transfer attack. The adversarial images are a sample of what
an attacker can do, so that their accuracy bounds the robust accuracy from above.

    {model, digest, file, set (its meta), victim ("own" or "other"), images, clean, robust, success, distances}
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_nas import user_code
from robust_nas.config import expand_path
from robust_nas.errors import ConfigError, DataError
from robust_nas.run_folder import Progress, silent, write_json
from robust_nas.workflows.attack_run import measured, refuse_occupied
from robust_nas.workflows.context import choose_device
from robust_nas.workflows.deployed_rule import with_own_rule
from robust_nas.workflows.places import model_in

if TYPE_CHECKING:
    from torch import nn

    from robust_nas.attacks.adversarial_set import AdversarialSet

BATCH = 256
RECORD = "saved_set.json"


def evaluate_set(
    model: Path | str,
    file: Path | str,
    out: Path | str | None = None,
    *,
    weights: Path | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Return how a model answers on a saved set; written to `out` as `saved_set.json` where that is given.

    `model` is a model folder, a run folder with one in `model/`, or `path.py:function` for a module of the user's own
    (with its `weights`). Raises `DataError` for a file that is no set, and `ConfigError` for one that the model does
    not take.
    """
    import torch

    from robust_nas.attacks.adversarial_set import read_set
    from robust_nas.evaluation.accuracy import Judged, judge
    from robust_nas.evaluation.inputs import model_errors

    path = expand_path(file)
    found = read_set(str(path))
    folder = None if out is None else expand_path(out)
    if folder is not None:
        refuse_occupied(folder)
    network, digest, deployed = _model(str(model), weights, found, path)
    place = choose_device(device)
    network = network.to(place).eval()
    predictor = _predictor(network, deployed)
    images = {name: torch.from_numpy(getattr(found, name)) for name in ("clean", "images")}
    labels = torch.from_numpy(found.labels)
    answers: dict[str, Judged] = {}
    for number, (name, pixels) in enumerate(images.items()):
        progress("saved set", number, len(images))
        parts = []
        for x, y in zip(torch.split(pixels, BATCH), torch.split(labels, BATCH), strict=True):
            with model_errors("the model cannot take images", x):
                draws = 1 if deployed is None else deployed.draws
                parts.append(judge(predictor, x.to(place), y.to(place), draws=draws))
        answers[name] = Judged.joined(parts)
    progress("saved set", len(images), len(images))
    record = {
        "model": str(model),
        "digest": digest,
        "file": str(path),
        "set": dict(found.meta),
        "victim": "own" if digest == found.meta["victim"] else "other",
        **measured(images["clean"], images["images"], answers["clean"], answers["images"]),
    }
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RECORD, record)
    return record


def _predictor(network: nn.Module, deployed: Any) -> Any:
    from robust_nas.attacks import Predictor

    if deployed is None:
        return Predictor.of(network)
    return Predictor(network, samples=deployed.samples, abstains=deployed.abstains)


def _model(model: str, weights: Path | None, found: AdversarialSet, path: Path) -> tuple[nn.Module, str, Any]:
    """Return network, digest and inference rule (None: one pass). Raises `ConfigError` for another kind of images."""
    from robust_nas.nets import read_model
    from robust_nas.nets.user_module import load_module, module_digest, source_of
    from robust_nas.workflows.config import model_config

    if user_code.is_code(model):
        source, _ = source_of(model)
        network = load_module(model, weights)
        return network, module_digest(network, source), None
    folder = model_in(model)
    config, read = model_config(folder), read_model(folder)
    deployed = with_own_rule(config, read.network, folder).evaluation.deployed
    shape, names = read.description.input_shape, list(read.description.class_names)
    if tuple(found.clean.shape[1:]) != tuple(shape):
        raise ConfigError(
            f"{path}: holds images of shape {found.clean.shape[1:]}, {folder} takes {tuple(shape)}"
        )
    theirs = found.meta["data"].get("class_names", names)
    if theirs != names:
        raise ConfigError(
            f"{path}: is of the classes {', '.join(map(str, theirs[:4]))}, ...; {folder} tells "
            f"{', '.join(names[:4])}, ..."
        )
    if int(found.labels.max()) >= len(names):
        raise DataError(f"{path}: has label {found.labels.max()}, {folder} tells {len(names)} classes")
    return read.network, read.digest, deployed
