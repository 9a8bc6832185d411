"""Configs that were broken at random, by `scripts/stress_configs.py`: they load, or are refused by errors of ours."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from robust_nas.config import to_yaml
from robust_nas.errors import MAX_MESSAGE
from robust_nas.workflows.config import load_config


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[1] / "scripts" / "stress_configs.py"
    spec = importlib.util.spec_from_file_location("stress_configs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["stress_configs"] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_500_broken_configs_are_answered_in_words_that_name_the_place(
    script: ModuleType, tmp_path: Path
) -> None:
    found = script.run_cases(500, 16, tmp_path)
    assert found.faults == []
    assert found.longest <= MAX_MESSAGE
    assert set(found.kinds) == set(script.KINDS)
    assert all(found.refused[kind] > 0 for kind in script.KINDS)
    assert sum(found.refused.values()) < 490  # some load, so the loading goes to its end


def test_every_kind_of_config_loads_where_nothing_is_broken(script: ModuleType, tmp_path: Path) -> None:
    for kind, (load, sources) in script.KINDS.items():
        for source in sources:
            resolved = kind in script.IN_MODEL_FOLDERS
            text = to_yaml(load_config(source)) if resolved else source.read_text()
            (tmp_path / "config.yaml").write_text(text)
            load(tmp_path / "config.yaml", [])
