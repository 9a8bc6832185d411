"""The verdict on a search: whether its architecture can be believed.

FAILED         with any FAIL: the supernet did not learn, or the cells collapsed
CONCLUSIVE     no FAIL, and every finding that the kind of strategy requires is a PASS
INCONCLUSIVE   otherwise, with the reasons
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from robust_nas.search.verdict.check import SearchFinding
from robust_nas.search.verdict.evidence import SearchEvidence
from robust_nas.search.verdict.findings import SEARCH_FINDINGS
from robust_nas.search.verdict.margin import edge_table

# Of the findings and their thresholds, as a verdict records it.
FINDINGS_VERSION = 1

SearchWord = Literal["FAILED", "CONCLUSIVE", "INCONCLUSIVE"]


@dataclass(frozen=True, kw_only=True)
class SearchVerdict:
    """One word on a search, its reasons, what to do about the first of them, and all findings."""

    status: SearchWord
    reasons: tuple[str, ...]
    next_step: str
    findings: tuple[SearchFinding, ...]
    edges: tuple[Mapping[str, Any], ...] = ()  # of the result: weight, noise and margin, where they are known

    @staticmethod
    def of(findings: Sequence[SearchFinding], edges: Sequence[Mapping[str, Any]] = ()) -> SearchVerdict:
        """Return the verdict that findings lead to."""
        failed = [one for one in findings if one.status == "FAIL"]
        lacking = [one for one in findings if one.required and one.status != "PASS"]
        status: SearchWord = "FAILED" if failed else "INCONCLUSIVE" if lacking else "CONCLUSIVE"
        decisive = failed or lacking
        decided = any(one.required and one.status == "PASS" for one in findings)
        if decided and decisive == lacking and len(lacking) == 1 and lacking[0].alone:
            reasons: tuple[str, ...] = (f"{lacking[0].alone}: {lacking[0].text}",)
        else:
            reasons = tuple(f"{one.name}: {one.text}" for one in decisive)
        return SearchVerdict(
            status=status,
            reasons=reasons,
            next_step=next((one.next_step for one in decisive if one.next_step), ""),
            findings=tuple(findings),
            edges=tuple(edges),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `verdict.json` holds them."""
        return {
            "findings_version": FINDINGS_VERSION,
            "status": self.status,
            "reasons": list(self.reasons),
            "next_step": self.next_step,
            "findings": [one.to_dict() for one in self.findings],
            "edges": [dict(one) for one in self.edges],
        }


def judge(evidence: SearchEvidence) -> SearchVerdict:
    """Return the verdict on the searches of one config, at least one.

    A pure function: the same evidence has the same verdict, by draws of a fixed seed.
    """
    checks = [SEARCH_FINDINGS.make(name) for name in SEARCH_FINDINGS.names()]
    fitting = [one for one in checks if evidence.strategy.kind in one.kinds and one.applies(evidence)]
    return SearchVerdict.of([one.run(evidence) for one in fitting], edge_table(evidence))
