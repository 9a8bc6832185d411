"""`SEARCH_FINDINGS`, which knows the findings on a search by name, in the order in which they are shown."""

from __future__ import annotations

from robust_nas.registry import Registry
from robust_nas.search.verdict.check import SearchCheck

SEARCH_FINDINGS = Registry(
    "search finding",
    SearchCheck,
    "robust_nas.search.verdict",
    {
        "learned": "learned:Learned",
        "losses": "losses:Losses",
        "collapse": "collapse:Collapse",
        "seed-agreement": "seed_agreement:SeedAgreement",
        "last-epochs": "last_epochs:LastEpochs",
        "margin": "margin:Margin",
        "entropy": "entropy:Entropy",
        "gamma": "gamma:Gamma",
        "discretisation": "discretisation:Discretisation",
        "rank-correlation": "rank_correlation:RankCorrelation",
        "control": "control:Control",
    },
    group="robust_nas.search_findings",
)
