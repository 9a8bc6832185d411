"""Learning-rate schedules, one file each; `SCHEDULES` knows them by name."""

from __future__ import annotations

from robust_nas.registry import Registry
from robust_nas.training.schedule import Schedule, cosine

SCHEDULES = Registry(
    "schedule",
    Schedule,
    "robust_nas.training.schedules",
    {
        "cosine": "warmup_cosine:Cosine",
        "piecewise": "piecewise:Piecewise",
    },
    group="robust_nas.schedules",
)

__all__ = ["SCHEDULES", "Schedule", "cosine"]
