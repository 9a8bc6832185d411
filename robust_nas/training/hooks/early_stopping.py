"""Early stopping by robust accuracy on validation (Rice, Wong and Kolter, 2020: robust overfitting).

The epoch that is kept is the most robust one in any case; this hook ends a training that has not become more robust for
`patience` validated epochs in a row, and so saves the rest of them. The test set plays no part.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from robust_nas.config import Count, Fraction01
from robust_nas.training.context import TrainingContext
from robust_nas.training.hook import HookOptions, TrainingHook


class EarlyStopping(HookOptions):
    """Ends the training after `patience` validated epochs that are no more robust than the best by `least_gain`."""

    needs_end: ClassVar[bool] = False

    name: Literal["early-stopping"] = "early-stopping"
    patience: Count = 10  # validated epochs without a gain after which it ends
    least_gain: Fraction01 = 0.0  # robust accuracy by which a gain must exceed the best

    def start(self, training: TrainingContext) -> TrainingHook:
        """Return the hook at the begin of a training."""
        return Patience(self)


class Patience(TrainingHook):
    """The hook in its running form."""

    def __init__(self, options: EarlyStopping) -> None:
        self.options = options
        self.best = -1.0
        self.waited = 0

    def validated(self, epoch: int, clean: float, robust: float) -> None:
        """Count the epochs since the best one."""
        if self.best < 0 or robust > self.best + self.options.least_gain:
            self.best, self.waited = robust, 0
        else:
            self.waited += 1
        self.stop = self.waited >= self.options.patience

    def state(self) -> dict[str, Any]:
        """Return the best accuracy and the epochs since."""
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Put them back."""
        self.best, self.waited = float(state["best"]), int(state["waited"])
        self.stop = self.waited >= self.options.patience
