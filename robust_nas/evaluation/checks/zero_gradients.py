"""The cross-entropy has an input gradient on every image, in the model as it is (Croce and Hein, 2020).

FAIL above a tenth of the images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks import FGSM
from robust_nas.attacks.losses import ce
from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost, Selection
from robust_nas.evaluation.seeds import generator_of

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status

MOST = 0.1


class ZeroGradients(SanityCheck):
    """The share of images on which the cross-entropy has no gradient at all."""

    title: ClassVar[str] = "zero gradients"
    allowed: ClassVar[str] = "0 of the images"
    selection: ClassVar[Selection] = "right"
    name: Literal["zero-gradients"] = "zero-gradients"

    def cost(self, state: EvaluationState) -> int:
        """Return one gradient."""
        return 2 * state.eot

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return the share of images whose gradient is zero or not finite."""
        from robust_nas.attacks.engine import opened

        x, y = state.batch(indices)
        # The cost of any attack of the family: its model gives the gradient, its step is not taken.
        attack = FGSM(**state.limits, fold=False, eot=state.eot)
        generator = generator_of(state.device, state.seed, "finding", self.title)
        with opened(attack, state.predictor, x, y, generator) as attacked:
            _, _, gradient = attacked.gradient(attacked.images, lambda logits: ce(logits, attacked.labels))
            cost.passes += attacked.forwards + attacked.backwards
        flat = gradient.flatten(1)
        dead = ((flat == 0) | ~flat.isfinite()).all(1)
        share = float(dead.float().mean())
        status: Status = "PASS" if share == 0 else "FAIL" if share > MOST else "WARN"
        text = (
            f"{int(dead.sum())} of {len(x)} images have no input gradient of the cross-entropy: saturated, "
            "quantised or detached; gradient attacks are blind there"
            if share
            else "the cross-entropy has an input gradient on every image"
        )
        return [self.finding(status, text, share, len(x))]
