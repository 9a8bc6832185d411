"""The jobs of a verb, announced before the first starts, so that what shows progress knows how far the whole is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robust_nas.run_folder import Progress

PER_CENT = "% of its images"  # note of a job that is counted in per cent, not in steps


@dataclass(frozen=True)
class Stage:
    """One of several jobs that follow each other.

    `job` is its name in calls of `Progress`, or the beginning of it up to a colon. `passes` are its forward-pass
    equivalents of one image of the network that the verb is about, at most; None where they are not known.
    """

    job: str
    passes: float | None = None

    def is_of(self, job: str) -> bool:
        """Return whether a name in calls of `Progress` is this job's."""
        return job == self.job or job.startswith(f"{self.job}:")


def announce(progress: Progress, stages: Sequence[Stage]) -> None:
    """Say which jobs follow, to a progress that has a method `plan`; the first verb that says so is the outermost."""
    plan = getattr(progress, "plan", None)
    if plan is not None:
        plan(stages)
