"""How progress reads: the number of the job, its rate, the time left of it and of the whole; a bar or a line each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from robust_nas.stages import PER_CENT, Stage

SECONDS_BETWEEN_LINES = 15.0
FIRST_SECONDS = 1.0  # of a job, in which no rate is shown


class JobClock:
    """What is known of the speed of the jobs so far. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.stages: Sequence[Stage] = ()
        self.job, self.first, self.began, self.done, self.total = "", 0, clock(), 0, 1
        self.place = -1  # of the job among the stages
        self.passes = self.seconds = 0.0  # of the jobs before this one whose passes are known

    def plan(self, stages: Sequence[Stage]) -> None:
        """Take the jobs that follow; later announcements, of jobs inside, are not the whole."""
        self.stages = self.stages or stages

    def update(self, job: str, done: int, total: int) -> bool:
        """Take the state of a job; return whether it is another one than before."""
        other = job != self.job
        if other:
            self._end_job()
            self.job, self.first, self.began = job, done, self.clock()
            found = (n for n in range(max(self.place, 0), len(self.stages)) if self.stages[n].is_of(job))
            self.place = next(found, self.place)
        self.done, self.total = done, total
        return other

    def _end_job(self) -> None:
        stage = self._stage()
        if stage is not None and stage.passes:
            self.passes += self._share() * stage.passes
            self.seconds += self.elapsed

    def _stage(self) -> Stage | None:
        """Return the stage of this job; None for a job inside another one, or not announced."""
        found = self.stages[self.place] if self.place >= 0 else None
        return found if found is not None and found.is_of(self.job) else None

    def _share(self) -> float:
        """Return the share of the job that was done in this process."""
        return (self.done - self.first) / max(self.total, 1)

    @property
    def elapsed(self) -> float:
        """Return the seconds of this job."""
        return self.clock() - self.began

    @property
    def number(self) -> str:
        """Return such as `2/5 `, the place of the job among those announced; empty where it is the only one."""
        return f"{self.place + 1}/{len(self.stages)} " if self.place >= 0 and len(self.stages) > 1 else ""

    @property
    def left(self) -> float | None:
        """Return the seconds left of this job; None where they are not known yet."""
        if self.done >= self.total:
            return 0.0
        done = self.done - self.first
        if done <= 0 or self.elapsed < FIRST_SECONDS:
            return None
        return (self.total - self.done) * self.elapsed / done

    def rate(self, note: str) -> str:
        """Return such as `3.2/s` or `4.1 s/step`; empty for a job in per cent, and where it is not known yet."""
        done = self.done - self.first
        if done <= 0 or self.elapsed < FIRST_SECONDS or PER_CENT in note:
            return ""
        speed = done / self.elapsed
        return f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s/step"

    @property
    def whole(self) -> str:
        """Return the time left of all jobs at most, at the speed of those so far, and the jobs of unknown length.

        Empty for the last job, and where no speed is known yet. Attacks skip what was broken, so it is often less.
        """
        later, left = self.stages[self.place + 1 :] if self.place >= 0 else (), self.left
        if not later or left is None:
            return ""
        passes, seconds = self.passes, self.seconds
        stage = self._stage()
        if stage is not None and stage.passes:
            passes, seconds = passes + self._share() * stage.passes, seconds + self.elapsed
        known = sum(each.passes or 0.0 for each in later)
        if known and not passes:
            return ""
        unknown = [each.job for each in later if each.passes is None]
        return (
            f"up to {' + '.join([duration(left + (known * seconds / passes if known else 0.0)), *unknown])}"
        )

    def text(self, note: str) -> str:
        """Return rate, time left and note."""
        left = self.left
        parts = [self.rate(note)]
        if left:
            parts.append(f"{duration(left)} left")
        if whole := self.whole:
            parts.append(f"whole {whole}")
        return "  ".join(filter(None, [", ".join(filter(None, parts)), note]))


def duration(seconds: float) -> str:
    """Return such as `0:07`, `12:30` or `3:05:00`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class Bars:
    """One rich bar per job."""

    def __init__(self, bars: Any) -> None:
        self.bars, self.clock = bars, JobClock()
        self.tasks: dict[str, Any] = {}

    def plan(self, stages: Sequence[Stage]) -> None:
        """Take the jobs that follow."""
        self.clock.plan(stages)

    def __call__(self, job: str, done: int, total: int, note: str = "") -> None:
        """Draw the bar of a job."""
        if self.clock.update(job, done, total):
            if job in self.tasks:
                self.bars.reset(self.tasks[job])
            else:
                self.tasks[job] = self.bars.add_task(job, total=total, text="")
        self.bars.update(
            self.tasks[job],
            description=f"{self.clock.number}{job}",
            completed=done,
            total=total,
            text=self.clock.text(note),
        )


class Lines:
    """A line now and then, by `say`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.clock, self.said = say, JobClock(), 0.0
        self.last: tuple[str, int, str] | None = None

    def plan(self, stages: Sequence[Stage]) -> None:
        """Take the jobs that follow."""
        self.clock.plan(stages)

    def __call__(self, job: str, done: int, total: int, note: str = "") -> None:
        """Print a line, where it is due."""
        now = time.monotonic()
        other = self.clock.update(job, done, total)
        if not other and done < total and now - self.said < SECONDS_BETWEEN_LINES:
            return
        if not other and self.last == (job, done, note):  # an end, once more
            return
        self.last = (job, done, note)
        text = self.clock.text(note)
        self.say(f"{self.clock.number}{job}: {done}/{total}{f', {text}' if text else ''}")
        self.said = now
