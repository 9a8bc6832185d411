"""Every registry of the package, as `module:NAME`, and the configs that a user writes, for the tests that walk them."""

import importlib
from typing import get_args

from pydantic import BaseModel

REGISTRIES = (
    "robust_nas.attacks:ATTACKS",
    "robust_nas.operations:ACTIVATIONS",
    "robust_nas.operations:OPERATIONS",
    "robust_nas.compression:COMPRESSORS",
    "robust_nas.data:DATASETS",
    "robust_nas.defences:DEFENCES",
    "robust_nas.evaluation:CHECKS",
    "robust_nas.distillation:DISTILLERS",
    "robust_nas.figures:FIGURES",
    "robust_nas.kernels:KERNELS",
    "robust_nas.logger:LOGGERS",
    "robust_nas.search:EVALUATORS",
    "robust_nas.search:PROXIES",
    "robust_nas.search:RANKINGS",
    "robust_nas.search:SEARCH_FINDINGS",
    "robust_nas.search:STRATEGIES",
    "robust_nas.search:TABLES",
    "robust_nas.spaces:FAMILIES",
    "robust_nas.studies.design:DESIGNS",
    "robust_nas.studies.rules:RULES",
    "robust_nas.training:HOOKS",
    "robust_nas.training:LOSSES",
    "robust_nas.training:SCHEDULES",
    "robust_nas.training:STEPS",
)
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
