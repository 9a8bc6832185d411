"""The standard step: one loss, one backward pass.

g = d/dw [L(f_w, x, y) + sum_h P_h(w)],   P_h the penalties of the hooks
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from robust_nas.training.context import Batch, TrainingContext
from robust_nas.training.hook import TrainingHook
from robust_nas.training.step import Measured, StepOptions, TrainingStep


class Standard(StepOptions):
    """One backward pass through the recipe's loss and the hooks' penalties."""

    needs_end: ClassVar[bool] = False

    name: Literal["standard"] = "standard"

    def start(self, training: TrainingContext, hooks: Sequence[TrainingHook]) -> TrainingStep:
        """Return the step at the begin of a training."""
        return StandardStep(training, hooks)


class StandardStep(TrainingStep):
    """The step in its running form; it has no state."""

    def gradients(self, batch: Batch) -> Measured:
        """Leave the gradients of this rank's share of the loss in the network's parameters."""
        value = self.training.value(batch.images, batch.labels)
        loss = self.backward(value.loss, batch)
        return Measured(loss, (value.logits.argmax(1) == batch.labels).sum())
