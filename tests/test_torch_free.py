"""Configs are checked without torch: every method's file is read without it."""

import subprocess
import sys

import pytest

REGISTRIES = [
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
]

CODE = """
import importlib, sys
module, _, name = sys.argv[1].partition(":")
registry = getattr(importlib.import_module(module), name)
for method in registry.built_in:
    registry.get(method)
    assert "torch" not in sys.modules, method
print(len(registry.built_in))
"""


@pytest.mark.parametrize("registry", REGISTRIES)
def test_every_method_of_a_registry_is_read_without_torch(registry):
    done = subprocess.run([sys.executable, "-c", CODE, registry], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
