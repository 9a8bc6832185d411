"""An image gets the same answer alone and among others: each is judged for itself, whatever the batch.

Batch statistics in eval mode, attention over the batch, or a rank within it make the accuracy a matter of the batch
size, and let the images of an attacked batch protect or betray each other. FAIL where the outputs move by more than
1e-3 of what decides (`layers/agreement.py`); batches of another size are rounded otherwise by far less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.evaluation.accuracy import judge
from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost
from robust_nas.evaluation.thresholds import MOVED_IN_ANOTHER_BATCH
from robust_nas.layers.agreement import disagreement
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding


class OtherImages(SanityCheck):
    """The answers of a batch are those of its images one by one."""

    title: ClassVar[str] = "answers for each image alone"
    allowed: ClassVar[str] = "at most 1e-3"
    most: ClassVar[int] = 16
    name: Literal["other-images"] = "other-images"

    def applies(self, state: EvaluationState) -> bool:
        """Return whether the model is deterministic, so that two passes can be compared."""
        return not state.predictor.random

    def cost(self, state: EvaluationState) -> int:
        """Return the pass in the batch and the one alone."""
        return 2

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return how many images answer otherwise alone than among the others."""
        x, y = state.batch(indices)
        together = judge(state.predictor, x, y).logits
        alone = torch.cat([judge(state.predictor, x[i : i + 1], y[i : i + 1]).logits for i in range(len(x))])
        cost.passes += 2 * len(x)
        moved = disagreement(together, alone)
        value = moved if moved < float("inf") else None
        if moved <= MOVED_IN_ANOTHER_BATCH:
            text = "every image gets the same answer alone and among others"
            return [self.finding("PASS", text, value, len(x))]
        other = int((together.argmax(1) != alone.argmax(1)).sum())
        text = (
            f"the outputs of an image depend on the other images of its batch ({other} of {len(x)} answers differ from "
            "those alone), and so does the accuracy; let no layer take statistics of the batch in eval mode"
        )
        return [self.finding("FAIL", text, value, len(x))]
