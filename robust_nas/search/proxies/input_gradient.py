"""Input-gradient norm: the first-order change of the loss by an Linf perturbation, per unit of eps.

    score = 1/B sum_b ||d/dx_b sum_i L_i||_1,    L_i the cross-entropy of image i

For a trained network a smaller norm is a smaller loss under attack, so a lower value counts as better. That this
carries over to networks at their initialisation is an assumption that robust proxies make; `docs/how-to/ranking.md` has
what was measured. Batch norm uses the statistics of the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.search.proxies.gradients import input_gradient
from robust_nas.search.proxies.proxy import Proxy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class InputGradientNorm(Proxy):
    """The mean L1 norm of the loss's gradient with respect to an image."""

    needs_labels: ClassVar[bool] = True
    passes: ClassVar[int] = 2
    higher_is_better: ClassVar[bool] = False

    name: Literal["input-gradient-norm"] = "input-gradient-norm"

    def score(self, network: nn.Module, images: Tensor, labels: Tensor | None, generator: Generator) -> float:
        """Return the mean norm."""
        assert labels is not None  # noqa: S101 - needs_labels
        gradient = input_gradient(network, images, labels)
        return float(gradient.double().flatten(1).abs().sum(1).mean())
