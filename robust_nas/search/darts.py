"""DARTS (Liu, Simonyan, Yang, ICLR 2019) with its losses on attacked images: adversarial DARTS.

One step, on a batch (x, y) of the weights' half and (v, t) of the alphas' half:

    x' = attack(w, alpha; x, y),   v' = attack(w, alpha; v, t)
    alpha <- Adam(alpha, d/dalpha L(w', alpha; v', t))
    w     <- SGD(w, d/dw L(w, alpha; x', y))

First order has w' = w; second order has w' = w - eta d/dw L(w, alpha; x', y), SGD's step with momentum and weight
decay, and the gradient goes through it (`one_shot/second_order.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.search.one_shot.batch import AlphaStep, Batch
from robust_nas.search.one_shot.second_order import UnrolledStrategy

if TYPE_CHECKING:
    from robust_nas.search.one_shot.steps import OneShotSearch


class DARTS(UnrolledStrategy):
    """Adversarial DARTS, of first or second order; other defaults are those of all one-shot strategies."""

    columns: ClassVar[tuple[str, ...]] = ("loss_weights", "loss_adversarial", "norm_adversarial")
    reported: ClassVar[tuple[str, ...]] = ("loss_adversarial",)

    name: Literal["darts"] = "darts"

    def alpha_gradient(self, search: OneShotSearch, alphas_batch: Batch, weights_batch: Batch) -> AlphaStep:
        """Return the gradient of the adversarial loss."""
        ((loss, gradient),) = self.alpha_gradients(
            search, [alphas_batch.adversarial], alphas_batch, weights_batch
        )
        return AlphaStep(gradient, {"loss_adversarial": loss, "norm_adversarial": gradient.norm()})
