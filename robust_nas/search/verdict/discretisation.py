"""The derived network is near the supernet that chose it, with the supernet's own weights.

    kept = (robust accuracy of the derived network - chance) / (that of the supernet - chance)

A large gap says that the alphas judged operations in a mixture that no network has (Wang et al., ICLR 2021). It does
not say that the architecture is poor: it is trained from the start.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from robust_nas.search.verdict.check import SearchCheck, SearchFinding
from robust_nas.search.verdict.evidence import SearchEvidence
from robust_nas.search.verdict.fitness import AGAIN, fitness_of
from robust_nas.search.verdict.thresholds import KEPT_BY_DERIVED

SHARPER = (
    "search until the edge weights are far from even, or derive by what the supernet loses without an operation "
    "(search.derive_by=perturbation)"
)


class Discretisation(SearchCheck):
    """What the derived network keeps of the supernet's robust accuracy above chance."""

    title: ClassVar[str] = "discretisation gap"
    allowed: ClassVar[str] = f"at least {KEPT_BY_DERIVED:g}"
    kinds: ClassVar[tuple[str, ...]] = ("one-shot",)
    name: Literal["discretisation"] = "discretisation"

    def run(self, evidence: SearchEvidence) -> SearchFinding:
        """Return WARN where the derived network keeps little, NOT RUN where it was not measured."""
        found = fitness_of(evidence.chosen) if evidence.seeds else None
        derived = None if found is None else found.get("derived")
        if found is None or derived is None or None in (*derived.values(), *found["supernet"].values()):
            text = "the derived network was not measured with the supernet's weights"
            return self.finding(evidence, "NOT RUN", text, next_step=AGAIN)
        supernet, chance = found["supernet"], found["chance"]
        text = (
            f"clean {supernet['clean']:.1%} -> {derived['clean']:.1%}, robust {supernet['robust']:.1%} -> "
            f"{derived['robust']:.1%} with inherited weights; "
            f"{found['dropped_weight']:.0%} of the edge weights are dropped"
        )
        details = {"supernet": dict(supernet), "derived": dict(derived), "dropped": found["dropped_weight"]}
        above = supernet["robust"] - chance
        if above <= 0:
            text += "; the supernet is at chance"
            return self.finding(evidence, "WARN", text, next_step=SHARPER, details=details)
        value = (derived["robust"] - chance) / above
        enough = value >= KEPT_BY_DERIVED
        return self.finding(
            evidence,
            "PASS" if enough else "WARN",
            text,
            value,
            next_step="" if enough else SHARPER,
            images=found["images"],
            details=details,
        )
