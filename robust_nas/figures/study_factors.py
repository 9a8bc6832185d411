"""Which factors a study varied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robust_nas.figures.series import Record

DERIVED = frozenset(
    (
        "params",
        "macs",
        "depth",
        "width",
        "r_d",
        "wd_ratio",
        "last_stage_params_share",
        "last_stage_macs_share",
        "genotype",
    )
)


def busiest_factors(points: Sequence[Record]) -> list[str]:
    """Return the factors that were set, not computed, and vary: those with most values first.

    Depth and width count where no stage was set by itself.
    """
    found: dict[str, set[Any]] = {}
    for point in points:
        for key, value in (point.get("factors") or {}).items():
            found.setdefault(key, set()).add(value)
    varied = [key for key, values in found.items() if len(values) > 1]
    chosen = [key for key in varied if key not in DERIVED]
    if not any(key.startswith(("depths.", "widths.")) for key in chosen):
        chosen += [key for key in ("depth", "width") if key in varied]
    return sorted(chosen, key=lambda key: -len(found[key]))
