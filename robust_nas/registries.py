"""Every registry of the package; asking for one imports its room, and no torch."""

from __future__ import annotations

import importlib
from typing import Any

from robust_nas.registry import Registry

REGISTRIES = (
    "robust_nas.attacks:ATTACKS",
    "robust_nas.operations:ACTIVATIONS",
    "robust_nas.logger:LOGGERS",
    "robust_nas.operations:OPERATIONS",
    "robust_nas.compression:COMPRESSORS",
    "robust_nas.data:DATASETS",
    "robust_nas.defences:DEFENCES",
    "robust_nas.evaluation:CHECKS",
    "robust_nas.distillation:DISTILLERS",
    "robust_nas.figures:FIGURES",
    "robust_nas.kernels:KERNELS",
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


def all_registries() -> list[Registry[Any]]:
    """Return all registries, in the order above."""
    found = []
    for target in REGISTRIES:
        module, _, name = target.partition(":")
        found.append(getattr(importlib.import_module(module), name))
    return found
