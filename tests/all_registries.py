"""Every registry of the package, as `module:NAME`, and the configs that a user writes, for the tests that walk them."""

import importlib
from typing import get_args

from pydantic import BaseModel

from robust_nas.registries import REGISTRIES as REGISTRIES

CONFIGS = (
    "robust_nas.workflows.config:RunConfig",
    "robust_nas.workflows.config:EvaluationConfig",
    "robust_nas.workflows.config:CompressionConfig",
    "robust_nas.workflows.attack_config:AttackTrainingConfig",
    "robust_nas.workflows.defence_config:DefenceConfig",
    "robust_nas.workflows.distill_config:DistillConfig",
    "robust_nas.workflows.rank_candidates:RankConfig",
    "robust_nas.studies.config:StudyConfig",
    "robust_nas.studies.comparison:Comparison",
    "robust_nas.spaces:CellSpace",
)


def named(target):
    """Return what `module:NAME` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def models_in(annotation):
    """Yield the models that a type names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def reachable(models):
    """Return the models and all that their fields hold."""
    found, waiting = [], list(models)
    while waiting:
        model = waiting.pop()
        if model not in found:
            found.append(model)
            waiting += [
                inner for field in model.model_fields.values() for inner in models_in(field.annotation)
            ]
    return found
