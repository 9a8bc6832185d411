"""The finished evaluations of a model: found next to it or inside its folder, and of this very model.

A model is known by its digest (`nets/digest.py`): an evaluation of other weights, another activation or another
normalisation is not taken for one of this model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from robust_nas.config import read_yaml
from robust_nas.errors import ConfigError, RunError
from robust_nas.runs import CONFIG, ENVIRONMENT, RESULT, read_json


class FinishedEvaluation(NamedTuple):
    """What an evaluation depends on (`config.yaml`), its outcome (`evaluation.json`), and its `environment.json`."""

    config: dict[str, Any]
    outcome: dict[str, Any]
    environment: dict[str, Any]


def finished_evaluations(model_folder: Path, digest: str) -> Iterator[FinishedEvaluation]:
    """Yield the finished evaluations of the model of this digest that its folder, or the folder around it, holds."""
    for place in (model_folder / "evaluation", model_folder.parent / "evaluation"):
        try:
            config = read_yaml(place / CONFIG)
            if config.get("digest") != digest:
                continue
            read_json(place / RESULT)  # the mark of a finished run
            found = FinishedEvaluation(
                config, read_json(place / "evaluation.json"), read_json(place / ENVIRONMENT)
            )
        except (ConfigError, RunError):  # none there, or of another version
            continue
        yield found
