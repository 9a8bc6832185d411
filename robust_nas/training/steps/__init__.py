"""Training steps, one file each; `STEPS` knows them by name."""

from __future__ import annotations

from robust_nas.registry import Registry
from robust_nas.training.step import StepOptions

STEPS = Registry(
    "step",
    StepOptions,
    "robust_nas.training.steps",
    {
        "standard": "standard:Standard",
        "free-at": "free_at:FreeAT",
        "er-cla": "er_cla:ERCLA",
        "ensemble": "ensemble:IndependentParticles",
        "ig-bnn": "ig_bnn:IGBNN",
    },
    group="robust_nas.steps",
)
