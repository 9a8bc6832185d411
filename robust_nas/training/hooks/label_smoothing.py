"""Label smoothing of the cross-entropy term alone (Szegedy et al., 2016; Gowal et al., 2020, in adversarial training).

    CE(z, y) = -sum_k t_k log p_k(z),   t = (1 - s) onehot(y) + s / K

Every cross-entropy of the loss (and of the auxiliary head) has smoothed targets; divergences, margins and penalties
stay as they are, as do the inner attack and validation. 0.1 is usual under attack, above 0.3 harms (Pang et al., 2021).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from robust_nas.config import Fraction01
from robust_nas.training.context import TrainingContext
from robust_nas.training.hook import HookOptions, TrainingHook


class LabelSmoothing(HookOptions):
    """Targets with the share `smoothing` spread over all classes, in the cross-entropy alone."""

    needs_end: ClassVar[bool] = False

    name: Literal["label-smoothing"] = "label-smoothing"
    smoothing: Fraction01 = 0.1  # share of a target that is spread over all classes

    def start(self, training: TrainingContext) -> TrainingHook:
        """Return the hook at the begin of a training."""
        return Smoothing(self.smoothing)


class Smoothing(TrainingHook):
    """The hook in its running form; it has no state."""

    def __init__(self, share: float) -> None:
        self.label_smoothing = share
