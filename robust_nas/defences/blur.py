"""Gaussian blur, the plainest input transformation: f(g * x), with g a normalised Gaussian kernel, edges mirrored.

It is differentiable, so that attacks go through it. Source: the transformations that Guo et al. (2018) look at; blur
is our addition to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from robust_nas.config import Positive
from robust_nas.defences.defence import Defence
from robust_nas.errors import ConfigError
from robust_nas.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.defences.defended import Defended


class Blur(Defence):
    """Images are blurred before the network sees them; `sigma` in pixels, the kernel reaches to three of them."""

    name: Literal["blur"] = "blur"
    sigma: Positive = 0.7  # standard deviation in pixels

    @property
    def reach(self) -> int:
        """Return the pixels on either side that the kernel covers."""
        return max(1, round(3 * self.sigma))

    def refuse_images(self, shape: tuple[int, ...], classes: int) -> None:
        """Raise `ConfigError` where the kernel reaches beyond the mirrored image."""
        if min(shape[1:]) <= self.reach:
            raise ConfigError(
                f"defence blur: sigma {self.sigma:g} needs images of more than {self.reach} pixels a side, "
                f"got {shape[1]} x {shape[2]}"
            )

    def build(self, network: nn.Module, values: Mapping[str, float]) -> Defended:
        """Return the network behind the blur."""
        from robust_nas.defences.defended import BeforeNetwork

        class Blurred(BeforeNetwork):
            def transformed(self, x: Tensor) -> Tensor:
                return blurred(x, sigma, reach)

        sigma, reach = self.sigma, self.reach
        return Blurred(network, self, values)


def blurred(x: Tensor, sigma: float, reach: int) -> Tensor:
    """Return images `[B, C, H, W]` blurred by a Gaussian of `sigma` pixels that is cut at `reach`."""
    places = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = (-(places**2) / (2 * sigma**2)).exp()
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    padded = F.pad(x, (reach, reach, reach, reach), mode="reflect")
    rows = F.conv2d(padded, kernel.unsqueeze(2), groups=x.shape[1])
    return F.conv2d(rows, kernel.unsqueeze(3), groups=x.shape[1])
