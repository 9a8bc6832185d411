"""How to time fairly: alternatives in one process, in turn, CPU time of one thread, the median and the minimum.

And how much memory a call takes.

On a shared machine wall time swings several-fold within a minute; in turn means that a slow minute meets every
alternative alike, so that the ratios hold where the seconds do not.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timing:
    """Seconds of one alternative, round by round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median round."""
        return statistics.median(self.seconds)

    @property
    def minimum(self) -> float:
        """The fastest round."""
        return min(self.seconds)

    def ratio(self, other: Timing) -> float:
        """The median over the rounds of this one's seconds per second of the other's."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


def interleaved(
    alternatives: Mapping[str, Callable[[], object]],
    rounds: int = 5,
    *,
    warmup: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Timing]:
    """The timings of every alternative, called in turn `rounds` times after `warmup` rounds that do not count.

    `clock` is CPU time of the process by default; for work on a GPU pass one that synchronises.
    """
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for number in range(warmup + rounds):
        for name, call in alternatives.items():
            began = clock()
            call()
            if number >= warmup:
                seconds[name].append(clock() - began)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def peak_resident(call: Callable[[], object]) -> float:
    """Return the MiB of memory that a call takes at its peak beyond what the process holds before; Linux alone.

    What the process has freed already counts as held: measure in a process of its own.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the resident set starts again
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def _resident(key: str) -> float:
    (kilobytes,) = re.findall(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) / 1024
