"""Hypervolumes against a count of cells, and curves of searches."""

import numpy as np
import pytest

from robust_nas.errors import StudyError
from robust_nas.statistics import best_so_far, curve, hypervolume


@pytest.mark.parametrize("objectives", [2, 3])
def test_hypervolume_counts_the_unit_cells_below_a_set(objectives):
    rng = np.random.default_rng(objectives)
    for points in (1, 2, 7, 30):
        found = rng.integers(-2, 9, (points, objectives))  # with ties, and with points below the reference
        cells = np.indices((9,) * objectives).reshape(objectives, -1).T
        covered = (found[:, None] > cells).all(axis=2).any(axis=0).sum()
        assert hypervolume(found, np.zeros(objectives)) == pytest.approx(covered)


def test_hypervolume_moves_with_its_reference_and_ignores_dominated_points():
    rng = np.random.default_rng(0)
    points, shift = rng.random((20, 3)), np.array([5.0, -2, 1])
    volume = hypervolume(points, np.zeros(3))
    assert hypervolume(points + shift, shift) == pytest.approx(volume)
    assert hypervolume(np.vstack([points, points * 0.9]), np.zeros(3)) == pytest.approx(volume)
    assert hypervolume(np.empty((0, 3)), np.zeros(3)) == 0
    assert hypervolume([[1.0], [3.0], [-1.0]], [0.5]) == 2.5
    deeper = np.column_stack([points, np.full(len(points), 0.5)])
    assert hypervolume(deeper, np.zeros(4)) == pytest.approx(volume / 2)


@pytest.mark.parametrize(
    ("points", "reference"),
    [([[]], []), ([[1.0, 2]], [0.0, 0, 0]), ([[np.nan, 1]], [0.0, 0]), ([1.0, 2], [0.0, 0])],
)
def test_other_shapes_are_refused(points, reference):
    with pytest.raises(StudyError, match="got"):
        hypervolume(points, reference)


def test_curves_are_means_of_the_best_so_far():
    values = [[np.nan, 3, 1, 5], [2, 1, 4, 4]]
    assert np.array_equal(best_so_far(values), [[np.nan, 3, 3, 5], [2, 2, 4, 4]], equal_nan=True)
    half, end = curve(values, [2, 4])
    assert (half.mean, end.mean, end.optimal) == (2.5, 4.5, None)
    assert (half.low, half.high) == (2, 3)
    regret = curve(values, [4], optimum=5)[0]
    assert (regret.mean, regret.optimal) == (0.5, 0.5)
    with pytest.raises(StudyError, match="got 1 evaluations"):
        curve(values, [1])
    with pytest.raises(StudyError, match=r"got 5 evaluations; 1\.\.4"):
        curve(values, [5])
