"""The protocol of findings on a search: to which searches a check applies, whether the verdict needs it, its finding.

A new finding is a subclass with its formula and `run`, in a file of its own, and a line in `SEARCH_FINDINGS`. A check
is a pure function of the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from robust_nas.evaluation.verdict import Finding, Status
from robust_nas.registry import Method
from robust_nas.search.strategy import finite
from robust_nas.search.verdict.evidence import SearchEvidence

KINDS = ("one-shot", "sampled")


@dataclass(frozen=True, kw_only=True)
class SearchFinding(Finding):
    """A finding on a search: also what chance gives, an interval, and whether the verdict needs it."""

    required: bool = False  # CONCLUSIVE needs its PASS
    interval: tuple[float, float] | None = None  # 95 %, of the value or of chance, as `allowed` says
    details: dict[str, Any] = field(default_factory=dict)  # further numbers, plain values
    alone: str = ""  # the reason of the verdict where no other required finding lacks its PASS

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain values."""
        interval = None if self.interval is None else [finite(bound) for bound in self.interval]
        own = {**super().to_dict(), "value": finite(self.value)}
        return {**own, "required": self.required, "interval": interval, "details": self.details}


class SearchCheck(Method):
    """Base of all findings on a search. `title` names the finding."""

    title: ClassVar[str] = ""
    allowed: ClassVar[str] = ""  # the value that is a PASS, in words
    kinds: ClassVar[tuple[str, ...]] = KINDS  # of strategies, to which it applies
    required_of: ClassVar[tuple[str, ...]] = ()  # the kinds of strategies whose CONCLUSIVE needs its PASS

    def applies(self, evidence: SearchEvidence) -> bool:
        """Return whether there is anything to look at; a check that does not apply finds nothing."""
        return True

    def run(self, evidence: SearchEvidence) -> SearchFinding:
        """Return the finding."""
        raise NotImplementedError(f"{type(self).__name__} finds nothing")

    def finding(
        self,
        evidence: SearchEvidence,
        status: Status,
        text: str,
        value: float | None = None,
        *,
        next_step: str = "",
        allowed: str | None = None,
        interval: tuple[float, float] | None = None,
        images: int = 0,
        details: dict[str, Any] | None = None,
        alone: str = "",
    ) -> SearchFinding:
        """Return a finding of this check; `allowed` is the class's unless it depends on the evidence."""
        return SearchFinding(
            name=self.title,
            status=status,
            text=text,
            value=value,
            images=images,
            allowed=self.allowed if allowed is None else allowed,
            next_step=next_step,
            required=evidence.strategy.kind in self.required_of,
            interval=interval,
            details=details or {},
            alone=alone,
        )
