"""The multiply-adds of one image: with the parameters the control that every other proxy has to beat.

Those of convolutions and linear layers, by torch's own counter (FLOPs = 2 x MACs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.lazy import torch
from robust_nas.search.proxies.proxy import Proxy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class MACs(Proxy):
    """The MACs of the network for one image of this size."""

    passes: ClassVar[int] = 1

    name: Literal["macs"] = "macs"

    def score(self, network: nn.Module, images: Tensor, labels: Tensor | None, generator: Generator) -> float:
        """Return the count."""
        from torch.utils.flop_counter import FlopCounterMode

        from robust_nas.attacks import attack_mode

        with attack_mode(network), torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(images[:1])
        return float(counter.get_total_flops() / 2)
