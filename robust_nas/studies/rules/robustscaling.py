"""Judge "robustness peaks near r_D = 0.7 at fixed MACs" (RobustScaling: Huang, Lu, Deb and Boddeti, CVPR 2023).

    r_D = sum D / (sum D + sum W)      D_i blocks, W_i widening factor of stage i

Supported where a significant maximum lies inside the range (`statistics/optima.py`), the parabola fits, and the
interval of its place holds 0.7; contradicted where the interval excludes it. The decision is our choice.
"""

from __future__ import annotations

from typing import Literal

from robust_nas.errors import StudyError
from robust_nas.spaces.rules import ROBUSTSCALING_DEPTH_SHARE as R_D
from robust_nas.statistics import Optimum, interior_optimum
from robust_nas.studies.rules.evidence import (
    ONE_SEED,
    Evidence,
    Status,
    budget_held,
    count_cases,
    format_evidence,
)
from robust_nas.studies.rules.rule import Rule, RuleVerdict

FITS = 0.05  # below this p value the parabola does not describe the curve


class RobustScaling(Rule):
    """At fixed MACs robustness peaks near r_D = 0.7."""

    statement = f"At fixed MACs robustness peaks where depth over depth and width, r_D, is near {R_D}."
    source = "Huang, Lu, Deb and Boddeti, CVPR 2023"
    factors = ("macs", "r_d")
    name: Literal["robustscaling"] = "robustscaling"

    def judge(self, evidence: Evidence) -> list[RuleVerdict]:
        """Return the verdict on the peak. Raises `StudyError` for fewer than 4 values of r_D at equal MACs."""
        points = [point for point in evidence.same_budget("macs") if point.has_number("r_d")]
        values = sorted({point.number("r_d") for point in points})
        if len(values) < 4:
            raise StudyError(
                f"rule {self.label!r}: r_D {values} at equal MACs (within 10 %); needed: 4 or more values"
            )
        found = None
        status: Status = "undecided"
        reason = ONE_SEED
        if any(len(point.seeds) > 1 for point in points):
            found = interior_optimum(
                "r_d",
                points,
                evidence.key,
                "macs",
                evidence.confidence,
                draws=evidence.draws,
                rng=evidence.rng(),
            )
            status, reason = _status(evidence, found)
        return [
            self.verdict(
                status=status,
                effect=found and found.location,
                interval=found and found.interval,
                unit="r_D",
                n=count_cases(points),
                about=points,
                held=budget_held(points, "macs"),
                reason=reason,
                optimum=found,
            )
        ]


def _status(evidence: Evidence, found: Optimum) -> tuple[Status, str]:
    place = format_evidence(found.location, found.interval, "r_D", evidence.confidence)
    if not found.interior:
        p = ", ".join(f"{value:.3g}" for value in found.p_ends)
        return "undecided", (
            f"no significant maximum inside the range ({found.top} over both ends: Holm p {p}); fit at {place}"
        )
    if found.p_lack_of_fit is not None and found.p_lack_of_fit < FITS:
        return "undecided", (
            f"a maximum lies inside, but the parabola misses the means (p {found.p_lack_of_fit:.3g}): {place}"
        )
    inside = f"a maximum lies inside the range, at {place}, which"
    if found.interval[0] <= R_D <= found.interval[1]:
        return "supported", f"{inside} holds {R_D}"
    return "contradicted", f"{inside} excludes {R_D}"
