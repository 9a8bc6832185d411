"""The supernet ranks architectures as short trainings do: Kendall's tau with its 95 % interval.

Measured with `search.short_trainings: n` sampled architectures. PASS where the interval lies above 0.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from robust_nas.search.verdict.check import SearchCheck, SearchFinding
from robust_nas.search.verdict.evidence import SearchEvidence
from robust_nas.search.verdict.fitness import fitness_of


class RankCorrelation(SearchCheck):
    """Kendall's tau of scores by inherited weights with those of short trainings."""

    title: ClassVar[str] = "rank correlation with short trainings"
    allowed: ClassVar[str] = "interval above 0"
    kinds: ClassVar[tuple[str, ...]] = ("one-shot",)
    name: Literal["rank-correlation"] = "rank-correlation"

    def run(self, evidence: SearchEvidence) -> SearchFinding:
        """Return WARN where the interval reaches down to 0, NOT RUN where nothing was trained."""
        found = (fitness_of(evidence.chosen) or {}).get("rank_correlation") if evidence.seeds else None
        if found is None:
            step = "search again with search.short_trainings=10 to train ten sampled architectures for a short time"
            text = "no sampled architectures were trained"
            return self.finding(evidence, "NOT RUN", text, next_step=step)
        tau, networks = found["kendall"], found["networks"]
        bounds = found.get("interval")
        interval = None if bounds is None else (float(bounds[0]), float(bounds[1]))
        shown = "no interval" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
        text = f"Kendall's tau {tau:.2f} ({shown}) over {networks} networks"
        if interval is not None and interval[0] > 0:
            return self.finding(evidence, "PASS", text, tau, interval=interval)
        step = "train more networks (search.short_trainings), or do not rank by this supernet"
        return self.finding(evidence, "WARN", text, tau, interval=interval, next_step=step)
