"""Gradient norm (Abdelfattah et al., 2021).

    score = sum_l ||dL/dW_l||_2,    L the mean cross-entropy of the batch

W_l are the weights of convolutions and linear layers. Batch norm uses the statistics of the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.lazy import torch
from robust_nas.search.proxies.gradients import weight_gradients
from robust_nas.search.proxies.proxy import Proxy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class GradNorm(Proxy):
    """The Euclidean norms of the weights' gradients, summed over layers."""

    needs_labels: ClassVar[bool] = True
    passes: ClassVar[int] = 2

    name: Literal["grad-norm"] = "grad-norm"

    def score(self, network: nn.Module, images: Tensor, labels: Tensor | None, generator: Generator) -> float:
        """Return the sum of the norms."""
        assert labels is not None  # noqa: S101 - needs_labels
        norms = [gradient.double().norm() for _, gradient in weight_gradients(network, images, labels)]
        return float(torch.stack(norms).sum())
