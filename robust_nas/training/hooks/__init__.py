"""Training hooks, one file each; `HOOKS` knows them by name."""

from __future__ import annotations

from robust_nas.registry import Registry
from robust_nas.training.hook import HookOptions

HOOKS = Registry(
    "hook",
    HookOptions,
    "robust_nas.training.hooks",
    {
        "awp": "awp:AWP",
        "swa": "swa:SWA",
        "label-smoothing": "label_smoothing:LabelSmoothing",
        "eps-schedule": "eps_schedule:EpsSchedule",
        "overfitting-guard": "overfitting_guard:OverfittingGuard",
        "early-stopping": "early_stopping:EarlyStopping",
        "extra-images": "extra_images:ExtraImages",
        "frozen-sparta": "frozen_sparta:FrozenSparta",
        "gaussian-noise": "gaussian_noise:GaussianNoise",
        "noise-layers": "noise_layers:NoiseLayers",
    },
    group="robust_nas.hooks",
)
