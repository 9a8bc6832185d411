"""SNIP (Lee et al., 2019; as a proxy: Abdelfattah et al., 2021).

    score = sum_w |w dL/dw|,    L the mean cross-entropy of the batch

w are the weights of convolutions and linear layers. Batch norm uses the statistics of the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.lazy import torch
from robust_nas.search.proxies.gradients import weight_gradients
from robust_nas.search.proxies.proxy import Proxy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class SNIP(Proxy):
    """How much the loss depends on the weights, by a first-order estimate."""

    needs_labels: ClassVar[bool] = True
    passes: ClassVar[int] = 2

    name: Literal["snip"] = "snip"

    def score(self, network: nn.Module, images: Tensor, labels: Tensor | None, generator: Generator) -> float:
        """Return the sum."""
        assert labels is not None  # noqa: S101 - needs_labels
        pairs = weight_gradients(network, images, labels)
        parts = [(weight * gradient).abs().double().sum() for weight, gradient in pairs]
        return float(torch.stack(parts).sum())
