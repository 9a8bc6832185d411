"""When a configuration is above chance: by its mean over seeds and images, and by each training's own clean answers."""

import numpy as np
import pytest

from robust_nas.statistics import Measurements, at_chance, summary
from robust_nas.statistics.proportions import wilson

IMAGES = 1000


def made(**right: list[int]) -> Measurements:
    """Return a configuration with this many right answers of each seed."""
    outcomes = {key: np.arange(IMAGES) < np.array(each)[:, None] for key, each in right.items()}
    return Measurements(name="p", seeds=tuple(range(len(next(iter(right.values()))))), outcomes=outcomes)


def test_a_configuration_above_chance_is_not_at_it() -> None:
    assert at_chance(made(clean=[900, 910, 920], robust=[400, 410, 420]), 0.1) is None


@pytest.mark.parametrize("right", [80, 100, 115])
def test_one_seed_is_at_chance_where_wilsons_interval_reaches_down_to_it(right: int) -> None:
    found = at_chance(made(clean=[right]), 0.1)
    assert found is not None
    assert (found.key, found.seed, found.accuracy) == ("clean", 0, right / IMAGES)
    assert found.interval == wilson(right, IMAGES)
    assert found.interval[0] <= 0.1
    assert at_chance(made(clean=[125]), 0.1) is None  # the bound is above 0.1


def test_robust_accuracy_counts_as_clean_accuracy_does() -> None:
    found = at_chance(made(clean=[900], robust=[100]), 0.1)
    assert found is not None
    assert (found.key, found.seed) == ("robust", 0)
    assert "robust accuracy of seed 0 10.0 %" in found.text(0.95)


def test_from_three_seeds_on_the_mean_over_seeds_and_images_counts() -> None:
    point = made(clean=[900, 900, 900], robust=[110, 250, 300])
    found = at_chance(point, 0.1)
    assert found is not None
    assert (found.key, found.seed) == ("robust", None)
    assert found.interval == summary(point, "robust").interval
    steady = made(clean=[900] * 6, robust=[117, 150, 152, 154, 156, 158])
    assert wilson(117, IMAGES)[0] < 0.1  # the lowest seed alone would not do
    assert at_chance(steady, 0.1) is None


def test_one_of_many_trainings_that_learned_nothing_is_found_behind_a_good_mean() -> None:
    point = made(clean=[900, 900, 94, 900, 900, 900, 900])
    assert summary(point, "clean").interval[0] > 0.1  # type: ignore[index]
    found = at_chance(point, 0.1)
    assert found is not None
    assert (found.seed, found.accuracy) == (2, 0.094)


def test_chance_is_that_of_the_images() -> None:
    point = made(clean=[300], robust=[300])
    assert at_chance(point, 0.1) is None
    assert at_chance(point, 0.3) is not None


def test_measures_alone_are_held_against_no_chance() -> None:
    assert at_chance(Measurements(name="p", seeds=(0,), measures={"clean": (0.0,)}), 0.1) is None
