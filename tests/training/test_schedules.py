"""Learning rates as functions of the position: end points, symmetry, steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_cases import SCHEDULES

from robust_nas.training import SCHEDULES as REGISTRY
from robust_nas.training import Cosine, Piecewise
from robust_nas.training.schedules import cosine

lengths = st.integers(1, 300)


def test_every_schedule_of_the_registry_is_in_the_suite():
    assert {type(one) for one in SCHEDULES.values()} == {REGISTRY.get(name) for name in REGISTRY.built_in}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_a_schedule_is_a_function_of_the_position_and_never_above_the_learning_rate(schedule):
    positions = [epoch / 10 for epoch in range(61)]
    found = [schedule.factor_at(position, 6) for position in positions]
    assert all(0 <= factor <= 1 for factor in found)
    assert max(found) == 1.0
    assert found == [schedule.factor_at(position, 6) for position in positions]
    assert all(factor > 0 for factor in found[:-1])  # every step moves the weights


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
    assert schedule.factor_at(0, epochs) == 1.0
    assert schedule.factor_at(epochs, epochs) == pytest.approx(final)
    assert schedule.factor_at(epochs / 3, epochs) == pytest.approx(cosine(epochs / 3, epochs, 1.0, final))


@given(st.integers(2, 100), st.floats(0.5, 1.9))
def test_warm_up_rises_linearly_to_the_full_rate_and_starts_above_zero(epochs, warmup):
    schedule = Cosine(warmup_epochs=warmup)
    start, middle = schedule.factor_at(0, epochs), schedule.factor_at(warmup / 2, epochs)
    top = schedule.factor_at(warmup, epochs)
    assert 0 < start < 0.05
    assert middle == pytest.approx((start + 1) / 2)
    assert top == 1.0
    assert schedule.factor_at(epochs, epochs) == pytest.approx(0, abs=1e-12)


def test_piecewise_drops_at_its_milestones():
    schedule = Piecewise(milestones=(99, 149), factor=0.1)
    found = [schedule.factor_at(epoch, 200) for epoch in (0, 98.999, 99, 148.999, 149, 200)]
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
