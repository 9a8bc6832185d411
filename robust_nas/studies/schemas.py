"""JSON schemas of the files that a user writes, for editors (`robust-nas schema`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_nas.config import Options, suggestion
from robust_nas.errors import ConfigError
from robust_nas.evaluation.options import Suite
from robust_nas.schema import json_schema
from robust_nas.spaces import CellSpace
from robust_nas.studies.comparison import Comparison
from robust_nas.studies.config import StudyConfig
from robust_nas.workflows.attack_config import AttackTrainingConfig
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.distill_config import DistillConfig

# What the keys of a file are, and the types of those that the room of the file does not know.
KINDS: Mapping[str, tuple[type[Options], Mapping[str, Any]]] = {
    "recipe": (RunConfig, {"compare": Comparison}),
    "study": (StudyConfig, {}),
    "suite": (Suite, {}),
    "space": (CellSpace, {}),
    "distillation": (DistillConfig, {}),
    "attack-training": (AttackTrainingConfig, {}),
}


def config_schema(kind: str = "recipe") -> dict[str, Any]:
    """Return the JSON schema (2020-12) of a kind of file: one of `KINDS`.

    It has the methods of installed plugins, and no key is required: a base or a default may give it. Raises
    `ConfigError` for another kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"schema: got {kind[:200]!r}; allowed: {', '.join(KINDS)}{suggestion(kind, KINDS)}")
    model, types = KINDS[kind]
    return json_schema(model, f"robust_nas {kind}", **types)
