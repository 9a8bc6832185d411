"""How progress reads: numbers of jobs, rates, time left of a job and of the whole."""

import pytest

from robust_nas.cli import shown_progress
from robust_nas.cli.shown_progress import Bars, JobClock, Lines, duration
from robust_nas.stages import PER_CENT, Stage, announce

PLAN = (
    Stage("search"),
    Stage("train", 600.0),
    Stage("evaluate: clean", 100.0),
    Stage("evaluate: pgd", 900.0),
)


class Time:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    time = Time()
    return time, JobClock(time)


def work(time, clock, job, total, seconds, first=1, last=None):
    """Do the steps of a job, each of which takes so many seconds and is reported at its end."""
    for done in range(first, (last or total) + 1):
        time.now += seconds
        clock.update(job, done, total)


def test_rates_below_one_a_second_are_seconds_of_a_step(clock):
    time, clock = clock
    work(time, clock, "train", 10, 4.0, last=3)
    assert clock.rate("") == "4.0 s/step"
    work(time, clock, "attack", 100, 0.25, last=20)
    assert clock.rate("") == "4.0/s"
    assert clock.rate(PER_CENT) == ""


def test_the_time_left_is_of_the_speed_in_this_process(clock):
    time, clock = clock
    work(time, clock, "train", 100, 2.0, first=51, last=60)  # resumed at step 50
    assert clock.left == 40 * 2.0
    work(time, clock, "train", 100, 2.0, first=61)
    assert clock.left == 0.0


def test_nothing_is_said_of_a_job_before_there_is_anything_to_say(clock):
    _, clock = clock
    clock.update("train", 1, 10)
    assert (clock.left, clock.text("loss 2")) == (None, "loss 2")


def test_the_whole_is_the_later_jobs_at_the_speed_of_those_so_far(clock):
    time, clock = clock
    clock.plan(PLAN)
    work(time, clock, "search", 10, 1.0, last=5)
    assert (clock.number, clock.left, clock.whole) == ("1/4 ", 5.0, "")  # no pass was made yet
    work(time, clock, "search", 10, 1.0, first=6)
    work(time, clock, "train", 60, 5.0, last=30)  # 10 passes a step: half a second each
    assert clock.number == "2/4 "
    assert (clock.left, clock.whole) == (150.0, f"up to {duration(150.0 + 1000 * 0.5)}")
    work(time, clock, "train", 60, 5.0, first=31)
    work(time, clock, "evaluate: clean", 100, 0.5)
    work(time, clock, "evaluate: pgd", 100, 4.5, last=50)
    assert (clock.number, clock.left, clock.whole) == ("4/4 ", 225.0, "")  # the last
    assert clock.text(PER_CENT) == f"3:45 left  {PER_CENT}"


def test_jobs_of_unknown_passes_are_named_after_the_time_of_the_others(clock):
    time, clock = clock
    clock.plan((*PLAN[1:], Stage("compress")))
    work(time, clock, "train", 60, 5.0, last=30)
    assert clock.whole == f"up to {duration(650.0)} + compress"
    work(time, clock, "compress: gdws", 1, 5.0)
    work(time, clock, "evaluate: clean", 100, 0.5)  # inside
    assert clock.number == "4/4 "
    assert clock._stage() is None


def test_a_plan_inside_another_is_not_the_whole(clock):
    _, clock = clock
    for stages in (PLAN, PLAN[2:]):
        announce(clock, stages)
    assert clock.stages == PLAN
    announce(lambda *arguments: None, PLAN)  # which shows none


def test_times_are_read_as_clocks():
    assert [duration(each) for each in (7.4, 750, 11100)] == ["0:07", "12:30", "3:05:00"]


def test_lines_come_with_a_new_job_now_and_then_and_at_the_end(monkeypatch):
    said, time = [], Time()
    monkeypatch.setattr(shown_progress.time, "monotonic", time)
    lines = Lines(said.append)
    lines.clock = JobClock(time)
    lines.plan(PLAN)
    for done in range(1, 11):
        lines("search", done, 10, f"epoch {done}/10")
        time.now += 5.0
    assert [line.partition(",")[0] for line in said] == [f"1/4 search: {n}/10" for n in (1, 4, 7, 10)]
    assert said[1] == "1/4 search: 4/10, 5.0 s/step, 0:30 left  epoch 4/10"
    lines("search", 10, 10, "epoch 10/10")
    assert len(said) == 4  # the end is not said again


def test_a_job_that_comes_back_has_its_bar_again():
    class Fake:
        def __init__(self):
            self.tasks, self.resets = [], []

        def add_task(self, job, **fields):
            self.tasks.append(job)
            return len(self.tasks) - 1

        def reset(self, task):
            self.resets.append(task)

        def update(self, task, **fields):
            pass

    bars = Bars(Fake())
    for job in ("train", "evaluate: clean", "train"):
        bars(job, 1, 2)
    assert (bars.bars.tasks, bars.bars.resets) == (["train", "evaluate: clean"], [0])
