"""The protocol of proxies: from an untrained network and one batch to a number that ranks architectures.

A new proxy is a subclass with its formula and `score`, in a file of its own, and a line in `PROXIES`.
Shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from robust_nas.registry import Method

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class Proxy(Method):
    """Base of all proxies. A value means nothing by itself: it ranks networks of one input and one batch."""

    needs_labels: ClassVar[bool] = False  # whether `score` gets the labels; None otherwise
    passes: ClassVar[int]  # forward plus backward passes of the batch
    higher_is_better: ClassVar[bool] = True

    def score(self, network: nn.Module, images: Tensor, labels: Tensor | None, generator: Generator) -> float:
        """Return the value for images `[B, C, H, W]` in 0..1 and labels `[B]`; the network is left as it was.

        `generator` lives on the images' device and is the one source of draws.
        """
        raise NotImplementedError(f"{type(self).__name__} has no formula")
