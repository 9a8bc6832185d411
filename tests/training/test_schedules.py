"""Learning rates as functions of the position: end points, symmetry, steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_nas.training.options import Cosine, Piecewise
from robust_nas.training.schedules import cosine, factor

lengths = st.integers(1, 300)


@given(lengths, st.floats(0.01, 1), st.floats(0, 0.01))
def test_a_cosine_goes_from_start_to_end_and_never_up(length, start, end):
    assert cosine(0, length, start, end) == pytest.approx(start)
    assert cosine(length, length, start, end) == pytest.approx(end)
    assert cosine(length / 2, length, start, end) == pytest.approx((start + end) / 2)
    values = [cosine(length * i / 50, length, start, end) for i in range(51)]
    assert values == sorted(values, reverse=True)
    assert cosine(length * 1.5, length, start, end) == pytest.approx(end)


def test_a_cosine_of_no_length_is_at_its_end():
    assert cosine(0, 0, 1.0, 0.25) == pytest.approx(0.25)


@given(lengths, st.floats(0, 0.5))
def test_without_warm_up_the_schedule_is_the_cosine(epochs, final):
    schedule = Cosine(final=final)
    assert factor(schedule, 0, epochs) == 1.0
    assert factor(schedule, epochs, epochs) == pytest.approx(final)
    assert factor(schedule, epochs / 3, epochs) == pytest.approx(cosine(epochs / 3, epochs, 1.0, final))


@given(st.integers(2, 100), st.floats(0.5, 1.9))
def test_warm_up_rises_linearly_to_the_full_rate_and_starts_above_zero(epochs, warmup):
    schedule = Cosine(warmup_epochs=warmup)
    start, middle = factor(schedule, 0, epochs), factor(schedule, warmup / 2, epochs)
    top = factor(schedule, warmup, epochs)
    assert 0 < start < 0.05
    assert middle == pytest.approx((start + 1) / 2)
    assert top == 1.0
    assert factor(schedule, epochs, epochs) == pytest.approx(0, abs=1e-12)


def test_piecewise_drops_at_its_milestones():
    schedule = Piecewise(milestones=(99, 149), factor=0.1)
    found = [factor(schedule, epoch, 200) for epoch in (0, 98.999, 99, 148.999, 149, 200)]
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
