"""One squeezer before the network: f(s(x)), the robust prediction of feature squeezing (Xu et al., 2018).

It rejects nothing; the detector is `feature-squeezing`. The formulas are in `squeezers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from robust_nas.defences.defence import Defence
from robust_nas.defences.squeezers import Squeezer, refuse_images, squeezer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.defences.defended import Defended


class SqueezedInput(Defence):
    """Images are squeezed before the network sees them; `by` is a squeezer, such as `median-2` or `bit-5`."""

    name: Literal["squeezer"] = "squeezer"
    by: Squeezer = "median-2"  # squeezer, such as median-2 or bit-5

    def refuse_images(self, shape: tuple[int, ...], classes: int) -> None:
        """Raise `ConfigError` where the squeezer is not defined for such images."""
        refuse_images(self.by, shape)

    @property
    def not_exported(self) -> str | None:
        """Return that a squeezer is no part of a graph of layers."""
        return f"its squeezer {self.by} is not written as layers"

    def build(self, network: nn.Module, values: Mapping[str, float]) -> Defended:
        """Return the network behind the squeezer."""
        from robust_nas.defences.defended import BeforeNetwork

        class Squeezed(BeforeNetwork):
            def transformed(self, x: Tensor) -> Tensor:
                return squeeze(x)

        squeeze = squeezer(self.by)
        return Squeezed(network, self, values)
