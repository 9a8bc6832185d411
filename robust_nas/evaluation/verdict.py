"""What the sanity checks found, and the verdict that their findings lead to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["PASS", "WARN", "FAIL", "NOT RUN"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked, with its number and what was allowed."""

    name: str
    status: Status
    text: str  # what was seen, in a sentence, and what to do about it where it is not a PASS
    value: float | None = None
    allowed: str = ""
    images: int = 0
    curve: tuple[dict[str, Any], ...] = ()  # points of the curve over eps, where the check drew it

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain values, without the curve."""
        return {
            "name": self.name,
            "status": self.status,
            "value": self.value,
            "allowed": self.allowed,
            "images": self.images,
            "text": self.text,
        }


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the evidence carries the figure: UNRELIABLE with a FAIL, INCONCLUSIVE with a WARN or a gap."""

    status: Literal["RELIABLE", "INCONCLUSIVE", "UNRELIABLE"]
    reasons: tuple[str, ...]

    @staticmethod
    def of(findings: tuple[Finding, ...]) -> Verdict:
        """Return the verdict that findings lead to; what was not run for want of passes leaves a gap."""
        if not findings:
            return Verdict(status="INCONCLUSIVE", reasons=("no finding was asked for",))
        for status, given in (("UNRELIABLE", "FAIL"), ("INCONCLUSIVE", "WARN"), ("INCONCLUSIVE", "NOT RUN")):
            reasons = tuple(f"{f.name}: {f.text}" for f in findings if f.status == given)
            if reasons:
                return Verdict(status=status, reasons=reasons)  # type: ignore[arg-type] # a literal of the tuple
        return Verdict(status="RELIABLE", reasons=())
