"""The Wilson interval against known values and its own definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from robust_nas.statistics.proportions import images_needed, wilson

Z = norm.ppf(0.975)


@pytest.mark.parametrize(
    ("successes", "n", "interval"),
    [
        (8, 10, (0.4902, 0.9433)),
        (0, 10, (0.0, 0.2775)),
        (10, 10, (0.7225, 1.0)),
        (450, 1000, (0.4194, 0.4810)),
    ],
)
def test_known_values(successes, n, interval):
    assert wilson(successes, n) == pytest.approx(interval, abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_bounds_are_where_the_score_test_just_rejects(case):
    # Wilson inverts the score test: |p - q| = z sqrt(q (1 - q) / n) at both bounds q.
    successes, n = case
    p = successes / n
    for bound in wilson(successes, n):
        assert 0 <= bound <= 1
        assert (p - bound) ** 2 == pytest.approx(Z**2 * bound * (1 - bound) / n, abs=1e-9)
    assert wilson(n - successes, n) == pytest.approx([1 - bound for bound in wilson(successes, n)][::-1])


@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_a_larger_confidence_is_a_wider_interval(confidence):
    low, high = wilson(7, 20)
    other_low, other_high = wilson(7, 20, confidence)
    assert (other_low < low, other_high > high) == (confidence > 0.95,) * 2


def test_ends_are_exact():
    assert wilson(0, 0) == (0, 1)
    for n in (1, 7, 100, 9999):
        assert wilson(0, n)[0] == 0
        assert wilson(n, n)[1] == 1
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson(3, 2)


def width(p, n):
    """The width of the interval of any proportion, by the formula at the head of the file."""
    return 2 * Z / (1 + Z**2 / n) * (p * (1 - p) / n + Z**2 / (4 * n**2)) ** 0.5


@given(st.floats(0, 1), st.floats(0.005, 0.9))
def test_images_needed_are_the_fewest_for_an_interval_of_that_width(p, target):
    n = images_needed(p, target)
    assert width(p, n) <= target * (1 + 1e-6)
    assert n == 1 or width(p, n - 1) > target * (1 - 1e-6)


def test_images_needed_agree_with_the_interval_itself():
    n = images_needed(0.5, 0.06)
    low, high = wilson(n // 2, n)
    assert high - low == pytest.approx(0.06, abs=1e-4)
    assert images_needed(0.0, 0.06) == 61


@pytest.mark.parametrize(("p", "target"), [(-0.1, 0.1), (1.1, 0.1), (0.5, 0), (0.5, 1)])
def test_values_out_of_range_are_refused(p, target):
    with pytest.raises(ValueError, match="needed: 0 <= proportion <= 1"):
        images_needed(p, target)
