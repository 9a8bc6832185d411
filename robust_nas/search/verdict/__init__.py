"""The verdict on a search: findings on its architecture, one file each, and the word that they lead to."""

from robust_nas.search.verdict.check import SearchCheck, SearchFinding
from robust_nas.search.verdict.evidence import SearchEvidence, SeedEvidence
from robust_nas.search.verdict.findings import SEARCH_FINDINGS
from robust_nas.search.verdict.verdict import FINDINGS_VERSION, SearchVerdict, judge

__all__ = [
    "FINDINGS_VERSION",
    "SEARCH_FINDINGS",
    "SearchCheck",
    "SearchEvidence",
    "SearchFinding",
    "SearchVerdict",
    "SeedEvidence",
    "judge",
]
