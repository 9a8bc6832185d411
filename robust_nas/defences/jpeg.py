"""JPEG compression before the network: f(decode(encode(round(255 x)))).

Source: Guo et al. (2018), quality 75. The encoder is Pillow's (libjpeg), with its usual chroma subsampling for RGB.
The backward pass is the identity (BPDA, by which Athalye et al. (2018) broke it): rounding has no useful gradient.
Our choice: pixels are rounded to the nearest of 0..255.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from robust_nas.config import Integer
from robust_nas.defences.defence import Defence
from robust_nas.defences.straight_through import straight_through
from robust_nas.errors import ConfigError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.defences.defended import Defended

MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's name


class JPEG(Defence):
    """Images are encoded as JPEG of this `quality` (1..100) and decoded again before the network sees them."""

    name: Literal["jpeg"] = "jpeg"
    quality: Annotated[Integer, Field(ge=1, le=100)] = 75  # 1..100

    @property
    def not_exported(self) -> str | None:
        """Return why there is no graph of it."""
        return "JPEG is encoded and decoded by Pillow, which is no operation of a graph"

    def refuse_images(self, shape: tuple[int, ...], classes: int) -> None:
        """Raise `ConfigError` for images that are neither grey nor RGB."""
        if shape[0] not in MODES:
            raise ConfigError(f"defence jpeg: needs images of 1 or 3 channels, got {shape[0]}")

    def build(self, network: nn.Module, values: Mapping[str, float]) -> Defended:
        """Return the network behind the compression."""
        from robust_nas.defences.defended import BeforeNetwork

        class Compressed(BeforeNetwork):
            def transformed(self, x: Tensor) -> Tensor:
                return straight_through(x, compressed(x, quality))

        quality = self.quality
        return Compressed(network, self, values)


def compressed(x: Tensor, quality: int) -> Tensor:
    """Return images `[B, C, H, W]` as they come out of a JPEG file, in the type and on the device of `x`."""
    pixels = (255 * x.detach().float().clamp(0, 1)).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
    # One after the other: an encoder takes one image.
    decoded = np.stack([_round_trip(each, quality) for each in pixels])
    return torch.from_numpy(decoded).permute(0, 3, 1, 2).to(x.device, x.dtype) / 255


def _round_trip(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return an image `[H, W, C]` uint8, encoded and decoded."""
    from PIL import Image

    height, width, channels = pixels.shape
    file = io.BytesIO()
    flat = np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels)
    Image.fromarray(flat, MODES[channels]).save(file, format="JPEG", quality=quality)
    with Image.open(file) as read:
        return np.asarray(read).reshape(height, width, channels)
