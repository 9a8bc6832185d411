"""The number of parameters: the control that every other proxy has to beat.

On the robust networks of the DARTS space nothing published ranks better, and most proxies add nothing to it
(`docs/` of the search; Kendall's tau with PGD accuracy .414 on Tiny-RobustBench's 223 networks).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.search.proxies.proxy import Proxy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class ParameterCount(Proxy):
    """The number of parameters of the network."""

    passes: ClassVar[int] = 0

    name: Literal["params"] = "params"

    def score(
        self, network: nn.Module, images: Tensor, labels: Tensor | None, generator: Generator
    ) -> float:
        """Return the count."""
        return float(sum(parameter.numel() for parameter in network.parameters()))
