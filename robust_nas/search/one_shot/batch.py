"""What the steps of a one-shot search hand on: batches, and gradients of the architecture parameters.

B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Half = Literal["weights", "alphas"]


class Batch(NamedTuple):
    """Images `[B, C, H, W]` in 0..1, the same images attacked, labels `[B]`; `share` of a batch split over ranks.

    `adversarial` are the images themselves where the strategy does not attack that half (`attacks_weights_half`).
    """

    natural: Tensor
    adversarial: Tensor
    labels: Tensor
    share: float = 1.0
    whole: int = 0  # images of all ranks; 0: those at hand


class AlphaGradient(Protocol):
    """What an alpha step descends, and what it measured on the way."""

    @property
    def gradient(self) -> Tensor:
        """Return one flat vector over all architecture parameters."""

    @property
    def measured(self) -> Mapping[str, Tensor]:
        """Return scalars on the device by their columns; a column may be absent."""


class AlphaStep(NamedTuple):
    """The plain `AlphaGradient`."""

    gradient: Tensor
    measured: Mapping[str, Tensor]


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Return one vector of all entries."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
