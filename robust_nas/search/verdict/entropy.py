"""How far the edge weights are from equal ones: their entropy, the mean over edges, against its start and ln O.

A crisp weight is no decision (a large learning rate makes weights crisp), but weights that are still even decide
nothing: the arg max then drops nearly all of a mixture.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from robust_nas.search.strategy import Record
from robust_nas.search.verdict.check import SearchCheck, SearchFinding
from robust_nas.search.verdict.evidence import SearchEvidence
from robust_nas.search.verdict.thresholds import STILL_EVEN


class Entropy(SearchCheck):
    """The entropy of the edge weights at the end as a share of ln O."""

    title: ClassVar[str] = "entropy of the edge weights"
    allowed: ClassVar[str] = f"below {STILL_EVEN} ln O"
    kinds: ClassVar[tuple[str, ...]] = ("one-shot",)
    name: Literal["entropy"] = "entropy"

    def applies(self, evidence: SearchEvidence) -> bool:
        """Return whether there is a choice, and the records have an entropy."""
        known = all(one.records and one.records[-1].get("entropy") for one in evidence.seeds)
        return len(evidence.space.operations) > 1 and bool(evidence.seeds) and known

    def run(self, evidence: SearchEvidence) -> SearchFinding:
        """Return WARN where the weights are still nearly equal."""
        largest = math.log(len(evidence.space.operations))
        count = len(evidence.seeds)
        end = sum(_mean(one.records[-1]) for one in evidence.seeds) / count
        start = sum(_mean(one.records[0]) for one in evidence.seeds) / count
        text = (
            f"{end:.3f} nats at the end, {start:.3f} at the start, {largest:.3f} for equal weights "
            f"(ln {len(evidence.space.operations)})"
        )
        details = {"start": start, "end": end, "equal": largest}
        if end / largest <= STILL_EVEN:
            return self.finding(evidence, "PASS", text, end / largest, details=details)
        step = "search longer (search.epochs) or with a larger search.alphas.learning_rate, and see whether seeds agree"
        return self.finding(
            evidence, "WARN", f"{text}: still even", end / largest, next_step=step, details=details
        )


def _mean(record: Record) -> float:
    kinds: dict[str, Any] = record["entropy"]
    return float(sum(kinds.values()) / len(kinds))
