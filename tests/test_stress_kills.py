"""Ten kills of `scripts/stress_kills.py`: the same results, and no litter."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_killed_at_random_instants_every_verb_ends_in_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for folder in ("tests", "tests/studies", "scripts"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    script = importlib.import_module("stress_kills")
    assert script.stress(10, 3).total() == 10
