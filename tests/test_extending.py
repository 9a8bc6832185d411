"""The page on methods of one's own: short examples, every kind of method, and the commands that it shows."""

import re

import pytest
from extending import EXAMPLES, PAGE

from robust_nas.attacks import ATTACKS
from robust_nas.compression import COMPRESSORS
from robust_nas.data import DATASETS
from robust_nas.evaluation import CHECKS
from robust_nas.figures import FIGURES
from robust_nas.operations import ACTIVATIONS, OPERATIONS
from robust_nas.search import EVALUATORS, PROXIES, STRATEGIES
from robust_nas.spaces import FAMILIES
from robust_nas.studies.design import DESIGNS
from robust_nas.studies.rules import RULES
from robust_nas.training import HOOKS, LOSSES, SCHEDULES, STEPS
from robust_nas.user_code import own_config

OF = {
    "corners.py": (ATTACKS, "Corners"),
    "mixup.py": (LOSSES, "Mixup"),
    "anchor.py": (HOOKS, "Anchor"),
    "free_at.py": (STEPS, "FreeAT"),
    "cyclic.py": (SCHEDULES, "Cyclic"),
    "natural_alphas.py": (STRATEGIES, "NaturalAlphas"),
    "hill_climbing.py": (STRATEGIES, "HillClimbing"),
    "gated.py": (OPERATIONS, "Gated"),
    "curved.py": (ACTIVATIONS, "Curved"),
    "stripes.py": (DATASETS, "Stripes"),
    "dark_survivors.py": (CHECKS, "DarkSurvivors"),
    "svd.py": (COMPRESSORS, "SVD"),
    "width_ladder.py": (DESIGNS, "WidthLadder"),
    "widest_wins.py": (RULES, "WidestWins"),
    "log_loss.py": (FIGURES, "LogLoss"),
}


def test_every_example_is_run_by_a_test():
    assert EXAMPLES.keys() == OF.keys()


@pytest.mark.parametrize("file", EXAMPLES)
def test_an_example_is_short_and_its_method_is_known_by_its_file(file, tmp_path):
    assert len(EXAMPLES[file].splitlines()) < 40
    (tmp_path / file).write_text(EXAMPLES[file])
    registry, name = OF[file]
    with own_config(tmp_path):
        found = registry.get(f"{file}:{name}")
    assert found.model_fields[registry.key].default == f"{tmp_path / file}:{name}"


def test_the_page_lists_every_registry_with_its_group():
    page = PAGE.read_text()
    for registry in {found for found, _ in OF.values()} | {EVALUATORS, PROXIES, FAMILIES}:
        assert f"`{registry.group}`" in page


def test_commands_name_files_of_the_page():
    named = re.findall(r"(\w+\.py):\w+", PAGE.read_text())
    assert set(named) - {"file.py"} <= EXAMPLES.keys()
