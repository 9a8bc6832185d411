"""The min-norm point of two gradients: brute force, end cases, degenerate cases."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robust_nas.search.min_norm import min_norm

entry = st.floats(-10, 10, allow_subnormal=False).map(lambda value: round(value, 6))
pairs = st.integers(1, 6).flatmap(
    lambda n: st.tuples(st.lists(entry, min_size=n, max_size=n), st.lists(entry, min_size=n, max_size=n))
)


def vector(values):
    return torch.tensor(values, dtype=torch.float64)


@given(pairs)
def test_no_gamma_of_a_grid_gives_a_shorter_vector(pair):
    u1, u2 = map(vector, pair)
    gamma, combined = min_norm(u1, u2)
    grid = torch.linspace(0, 1, 1001, dtype=torch.float64)[:, None]
    shortest = (grid * u1 + (1 - grid) * u2).norm(dim=1).min()
    assert 0 <= gamma <= 1
    assert combined.norm() <= shortest + 1e-9
    # the curve is flat at its minimum: within a grid step the two lengths differ by at most that step's length
    assert shortest - combined.norm() <= (u1 - u2).norm() / 1000 + 1e-9
    torch.testing.assert_close(combined, gamma * u1 + (1 - gamma) * u2)


@given(pairs)
def test_the_combination_descends_both_losses_or_is_zero(pair):
    u1, u2 = map(vector, pair)
    _, combined = min_norm(u1, u2)
    squared = combined.dot(combined)
    assert combined.dot(u1) >= squared - 1e-9
    assert combined.dot(u2) >= squared - 1e-9


@given(pairs)
def test_exchanging_the_gradients_exchanges_the_weights(pair):
    u1, u2 = map(vector, pair)
    gamma, combined = min_norm(u1, u2)
    swapped, same = min_norm(u2, u1)
    torch.testing.assert_close(combined, same, atol=1e-9, rtol=1e-9)
    if (u1 - u2).norm() > 1e-3:
        torch.testing.assert_close(gamma, 1 - swapped, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("scale", [1.5, 10.0, 1e6])
def test_the_shorter_of_two_parallel_gradients_is_taken_whole(scale):
    short = vector([1.0, -2.0, 0.5])
    gamma, combined = min_norm(short, scale * short)
    assert gamma == 1
    assert torch.equal(combined, short)
    gamma, combined = min_norm(scale * short, short)
    assert gamma == 0
    assert torch.equal(combined, short)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1e-30, 1.0, 1e15])
def test_equal_gradients_give_one_half_and_themselves(dtype, value):
    u = torch.full((4,), value, dtype=dtype)
    gamma, combined = min_norm(u, u.clone())
    assert gamma == 0.5
    assert torch.equal(combined, u)


def test_opposite_gradients_meet_at_zero():
    u = vector([3.0, -4.0])
    gamma, combined = min_norm(u, -u)
    assert gamma == 0.5
    assert combined.norm() == 0
    gamma, combined = min_norm(u, -3 * u)
    assert gamma == pytest.approx(0.75)
    assert combined.norm() == pytest.approx(0, abs=1e-12)


def test_orthogonal_gradients_of_one_length_are_averaged():
    gamma, combined = min_norm(vector([2.0, 0.0]), vector([0.0, 2.0]))
    assert gamma == 0.5
    assert combined.tolist() == [1.0, 1.0]


def test_nan_is_not_hidden():
    assert min_norm(vector([float("nan"), 1.0]), vector([1.0, 1.0]))[1].isnan().any()
