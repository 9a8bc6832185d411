"""Training: one loop for every loss, step and hook; weight averaging, schedules, and when to give up.

`LOSSES`, `HOOKS`, `STEPS` and `SCHEDULES` know their methods by name; recipes are read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust_nas.training.context import Batch, TrainingContext
    from robust_nas.training.hook import HookOptions, TrainingHook
    from robust_nas.training.hooks import HOOKS
    from robust_nas.training.hooks.awp import AWP
    from robust_nas.training.loop import TrainingOutcome, train
    from robust_nas.training.loss import Loss, LossValue, cross_entropy
    from robust_nas.training.losses import LOSSES
    from robust_nas.training.losses.natural import Natural
    from robust_nas.training.losses.pgd_at import PGDAT
    from robust_nas.training.losses.trades import TRADES
    from robust_nas.training.recipe import Training
    from robust_nas.training.schedule import Schedule
    from robust_nas.training.schedules import SCHEDULES
    from robust_nas.training.schedules.piecewise import Piecewise
    from robust_nas.training.schedules.warmup_cosine import Cosine
    from robust_nas.training.step import Measured, StepOptions, TrainingStep
    from robust_nas.training.steps import STEPS
    from robust_nas.training.steps.standard import Standard

_HOMES = {
    "AWP": "hooks.awp",
    "Batch": "context",
    "Cosine": "schedules.warmup_cosine",
    "HOOKS": "hooks",
    "HookOptions": "hook",
    "LOSSES": "losses",
    "Loss": "loss",
    "LossValue": "loss",
    "Measured": "step",
    "Natural": "losses.natural",
    "PGDAT": "losses.pgd_at",
    "Piecewise": "schedules.piecewise",
    "SCHEDULES": "schedules",
    "STEPS": "steps",
    "Schedule": "schedule",
    "Standard": "steps.standard",
    "StepOptions": "step",
    "TRADES": "losses.trades",
    "Training": "recipe",
    "TrainingContext": "context",
    "TrainingHook": "hook",
    "TrainingOutcome": "loop",
    "TrainingStep": "step",
    "cross_entropy": "loss",
    "train": "loop",
}

__all__ = [
    "AWP",
    "HOOKS",
    "LOSSES",
    "PGDAT",
    "SCHEDULES",
    "STEPS",
    "TRADES",
    "Batch",
    "Cosine",
    "HookOptions",
    "Loss",
    "LossValue",
    "Measured",
    "Natural",
    "Piecewise",
    "Schedule",
    "Standard",
    "StepOptions",
    "Training",
    "TrainingContext",
    "TrainingHook",
    "TrainingOutcome",
    "TrainingStep",
    "cross_entropy",
    "train",
]


def __getattr__(name: str) -> Any:
    """Return a public name, imported at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
