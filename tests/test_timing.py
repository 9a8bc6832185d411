"""Fair timing by a clock that ticks when the alternatives say so."""

import pytest

from robust_nas.timing import Timing, interleaved


class Clock:
    """Seconds that pass only in a call."""

    def __init__(self):
        self.now = 100.0
        self.calls = []

    def __call__(self):
        return self.now

    def taking(self, name, *durations):
        """An alternative that takes these seconds, call by call; the last of them for ever."""
        left = list(durations)

        def call():
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def test_every_round_calls_each_in_turn_and_the_warmup_does_not_count():
    clock = Clock()
    found = interleaved(
        {"a": clock.taking("a", 50, 1, 2, 3), "b": clock.taking("b", 70, 4, 6, 5)}, rounds=3, clock=clock
    )
    assert clock.calls == ["a", "b"] * 4
    assert found == {"a": Timing((1, 2, 3)), "b": Timing((4, 6, 5))}


@pytest.mark.parametrize("warmup", [0, 2])
def test_the_warmup_may_be_of_any_length(warmup):
    clock = Clock()
    found = interleaved({"a": clock.taking("a", 9, 1)}, rounds=2, warmup=warmup, clock=clock)
    assert found["a"].seconds == ((9, 1) if warmup == 0 else (1, 1))
    assert len(clock.calls) == 2 + warmup


def test_median_and_minimum():
    timing = Timing((3.0, 1.0, 8.0, 2.0))
    assert (timing.median, timing.minimum) == (2.5, 1.0)


def test_the_ratio_is_taken_round_by_round():
    # The machine was ten times as slow in the second round, for both: the ratio does not notice.
    ours, theirs = Timing((1.0, 10.0, 1.0)), Timing((2.0, 20.0, 2.0))
    assert ours.ratio(theirs) == 0.5
    assert theirs.ratio(ours) == 2.0
    # A round in which one alone was disturbed is outvoted.
    assert Timing((1.0, 50.0, 1.0)).ratio(theirs) == 0.5


def test_timings_of_different_rounds_have_no_ratio():
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        Timing((1.0, 2.0)).ratio(Timing((1.0,)))


def test_without_a_clock_it_is_the_process_that_is_timed():
    (timing,) = interleaved({"nothing": lambda: None}, rounds=2).values()
    assert len(timing.seconds) == 2
    assert all(seconds >= 0 for seconds in timing.seconds)
