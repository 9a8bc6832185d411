"""What the sanity checks found, and the verdict that their findings lead to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["PASS", "WARN", "FAIL", "NOT RUN"]

# Of the checks and their thresholds, as a verdict records it; 1 where it does not. 2: gradients must predict the
# margin, a chosen class must be reached, images are judged alone; the active test reads the logits.
FINDINGS_VERSION = 2

ASK = "evaluate with evaluation.findings=budget (the default) or full"
# By status: what to do about a finding that does not say it itself.
USUAL: dict[Status, str] = {
    "PASS": "",
    "FAIL": "do not report the robust accuracy; repair what {name!r} says, and evaluate again",
    "WARN": "evaluate again with a stronger suite (autoattack) and more images; if {name!r} stays, report it with the "
    "figure",
    "NOT RUN": "evaluate again with evaluation.findings=full, or with more images, so that {name!r} is run",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked, with its number and what was allowed."""

    name: str
    status: Status
    text: str  # what was seen, in a sentence, and what to do about it where it is not a PASS
    value: float | None = None
    allowed: str = ""
    images: int = 0
    next_step: str = ""  # what to do about it, where the usual answer to its status is not enough
    curve: tuple[dict[str, Any], ...] = ()  # points of a curve, where the check drew one
    over: Literal["eps", "eot"] = "eps"  # of the curve

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain values, without the curve."""
        return {
            "name": self.name,
            "status": self.status,
            "value": self.value,
            "allowed": self.allowed,
            "images": self.images,
            "text": self.text,
            "next_step": self.next_step,
        }


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the evidence carries the figure: UNRELIABLE with a FAIL, INCONCLUSIVE with a WARN or a gap."""

    status: Literal["RELIABLE", "INCONCLUSIVE", "UNRELIABLE"]
    reasons: tuple[str, ...]
    next_step: str = field(default="", compare=False)  # what to do about the first reason

    @staticmethod
    def of(findings: tuple[Finding, ...]) -> Verdict:
        """Return the verdict that findings lead to; what was not run for want of passes leaves a gap."""
        if not findings:
            return Verdict(status="INCONCLUSIVE", reasons=("no finding was asked for",), next_step=ASK)
        for status, given in (("UNRELIABLE", "FAIL"), ("INCONCLUSIVE", "WARN"), ("INCONCLUSIVE", "NOT RUN")):
            found = [finding for finding in findings if finding.status == given]
            if found:
                return Verdict(
                    status=status,  # type: ignore[arg-type] # a literal of the tuple
                    reasons=tuple(f"{finding.name}: {finding.text}" for finding in found),
                    next_step=found[0].next_step or USUAL[found[0].status].format(name=found[0].name),
                )
        return Verdict(status="RELIABLE", reasons=())


def version_of(verdict: Mapping[str, Any]) -> int:
    """Return the version of the findings that a recorded verdict is of."""
    return int(verdict.get("findings_version", 1))


def status_of(verdict: Mapping[str, Any]) -> str:
    """Return the word of a recorded verdict, with the version of its findings where that is not today's."""
    version = version_of(verdict)
    other = "" if version == FINDINGS_VERSION else f" (findings v{version}, today v{FINDINGS_VERSION})"
    return f"{verdict['status']}{other}"
