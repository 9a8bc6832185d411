"""The loss has an input gradient, on every image and of every pixel, in the model as it is (Croce and Hein, 2020).

    blind   the gradient of the cross-entropy is 0 for all pixels; and that of the margin, or no attack is led by it
    NaN     the share of pixels whose gradient is not finite: a step in their direction is never taken

FAIL above a tenth of the images, or a hundredth of the pixels. Where the cross-entropy alone is 0, the model is
confident (from about 17 nats on the softmax is exact in float32): a WARN, unless an attack of the list is led by the
margin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.attacks.losses import ce, margin
from robust_nas.evaluation.checks.check import SanityCheck
from robust_nas.evaluation.cost import Cost, Selection
from robust_nas.evaluation.input_gradient import input_gradient
from robust_nas.evaluation.thresholds import BLIND_IMAGES, BROKEN_PIXELS

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.evaluation.state import EvaluationState
    from robust_nas.evaluation.verdict import Finding, Status


class ZeroGradients(SanityCheck):
    """The share of images on which the losses have no gradient at all, and of pixels where it is not finite."""

    title: ClassVar[str] = "zero gradients"
    allowed: ClassVar[str] = "0 of the images"
    selection: ClassVar[Selection] = "right"
    name: Literal["zero-gradients"] = "zero-gradients"

    def cost(self, state: EvaluationState) -> int:
        """Return two gradients."""
        return 3 * state.eot

    def run(self, state: EvaluationState, indices: Tensor, cost: Cost) -> list[Finding]:
        """Return the share of images whose gradients are zero, or that of pixels whose gradient is not finite."""
        x, y = state.batch(indices)
        _, _, gradients = input_gradient(state, x, y, (ce, margin), cost)
        saturated, blind = ((gradient.flatten(1) == 0).all(1) for gradient in gradients)
        saturated &= ~blind
        broken = float((~gradients[1].isfinite()).float().mean())
        share = float(blind.float().mean())
        if broken:
            status: Status = "FAIL" if broken > BROKEN_PIXELS else "WARN"
            text = f"{100 * broken:.2g} % of the pixels have a gradient that is NaN or infinite: no attack moves them"
            return [self.finding(status, text, broken, len(x), allowed="0 of the pixels")]
        if share:
            status = "FAIL" if share > BLIND_IMAGES else "WARN"
            text = (
                f"{int(blind.sum())} of {len(x)} images have no input gradient: quantised or detached; gradient "
                "attacks are blind there"
            )
            return [self.finding(status, text, share, len(x))]
        count = int(saturated.sum())
        if count and not state.sees_margin:
            text = (
                f"{count} of {len(x)} images have no input gradient of the cross-entropy, which is 0 in float32; add "
                "an attack on the margin, such as those of the suite cascade"
            )
            return [self.finding("WARN", text, count / len(x), len(x))]
        text = "every image has an input gradient"
        text += f" ({count} of the margin alone, which an attack follows)" if count else ""
        return [self.finding("PASS", text, share, len(x))]
