"""Configs are checked without torch: every method's file is read without it."""

import subprocess
import sys

import pytest
from all_registries import REGISTRIES

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
