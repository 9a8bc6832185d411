"""The result next to random networks of equal MACs, trained and attacked by the same recipe (`workflows/controls.py`).

    difference = robust accuracy of the result - mean of the controls,  paired by image, with its 95 % interval

PASS where the interval lies above zero. One control gives an interval over images alone, several one over networks too.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from robust_nas.search.verdict.check import SearchCheck, SearchFinding
from robust_nas.search.verdict.evidence import SearchEvidence

NOT_BETTER = "not better than random at equal MACs"
LONGER = "search longer or with more images, or take a random network of these MACs"


class Control(SearchCheck):
    """The robust accuracy of the result minus the mean of its controls."""

    title: ClassVar[str] = "control at equal MACs"
    allowed: ClassVar[str] = "interval above 0"
    required_of: ClassVar[tuple[str, ...]] = ("one-shot", "sampled")
    name: Literal["control"] = "control"

    def run(self, evidence: SearchEvidence) -> SearchFinding:
        """Return PASS where the interval of the difference lies above 0, NOT RUN without controls."""
        found = evidence.controls
        if found is None or found.get("difference") is None:
            text = "no random network of equal MACs was trained next to the result"
            return self.finding(evidence, "NOT RUN", text, next_step=evidence.add_controls)
        robust = found["difference"]["robust"]
        effect, interval = robust["effect"], robust["interval"]
        count = found["controls"]
        shown = "no interval" if interval is None else f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"
        compared = f"{100 * effect:+.1f} points of robust accuracy ({shown}) against {count} random networks"
        bounds = None if interval is None else (float(interval[0]), float(interval[1]))
        unreliable = [row["label"] for row in found["networks"] if row["verdict"] == "UNRELIABLE"]
        if unreliable:
            text = f"{compared}, but the robust accuracy of {', '.join(unreliable)} is UNRELIABLE"
            step = "repair what the verdict of its evaluation says, and compare again"
            return self.finding(evidence, "WARN", text, effect, interval=bounds, next_step=step)
        if bounds is not None and bounds[0] > 0:
            text = f"better than random at equal MACs: {compared}"
            return self.finding(evidence, "PASS", text, effect, interval=bounds)
        better = "; the controls are better" if bounds is not None and bounds[1] < 0 else ""
        text = f"{NOT_BETTER}: {compared}{better}"
        return self.finding(
            evidence,
            "WARN",
            text,
            effect,
            interval=bounds,
            next_step=LONGER,
            alone=f"decided, but {NOT_BETTER}",
        )
