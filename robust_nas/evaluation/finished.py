"""The finished evaluations of a model: found next to it or inside its folder, and of this very model.

A model is known by its digest (`nets/digest.py`): an evaluation of other weights, another activation or another
normalisation is not taken for one of this model. Records of versions before 0.2 have the SHA-256 of the weights' file
in its place.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from robust_nas.config import read_yaml
from robust_nas.errors import ConfigError, RecordWarning, RunError
from robust_nas.evaluation.report import RECORDED
from robust_nas.records import RESULT, read_environment, read_record
from robust_nas.run_folder import CONFIG


class FinishedEvaluation(NamedTuple):
    """What an evaluation depends on (`config.yaml`), its outcome (`evaluation.json`), and its `environment.json`."""

    config: dict[str, Any]
    outcome: dict[str, Any]
    environment: dict[str, Any]


def finished_evaluations(model_folder: Path, digest: str) -> Iterator[FinishedEvaluation]:
    """Yield the finished evaluations of the model of this digest that its folder, or the folder around it, holds.

    In each, `evaluation` comes first, then `evaluation-...` by name.

    Warn (`RecordWarning`) of one that is damaged, or was changed after it ended.
    """
    folders = (model_folder, model_folder.parent)
    for place in (place for folder in folders for place in _evaluations(folder)):
        try:
            config = read_yaml(place / CONFIG)
        except ConfigError:  # none there, or of another version
            continue
        if not _is_of(config, model_folder, digest) or not (place / RESULT).is_file():
            continue
        try:
            outcome = read_record(place, "evaluation.json", RECORDED)
            found = FinishedEvaluation(config, outcome, read_environment(place))
        except RunError as error:
            warnings.warn(f"its verdict is not taken over: {error}", RecordWarning, stacklevel=2)
            continue
        yield found


def _evaluations(folder: Path) -> list[Path]:
    return [folder / "evaluation", *sorted(folder.glob("evaluation-*"))]


def _is_of(config: Mapping[str, Any], model_folder: Path, digest: str) -> bool:
    """Return whether the record of an evaluation is of this model."""
    if "digest" in config:
        return bool(config["digest"] == digest)
    weights = model_folder / "model.safetensors"
    return weights.is_file() and config.get("weights") == hashlib.sha256(weights.read_bytes()).hexdigest()
