"""Random crops, resized to the whole image: in every forward pass each image gets a crop of its own.

    p(x) = 1/S sum_s softmax f(resize(crop_s(x))),   S = `samples`

Source: Guo et al. (2018), whose answer is the mean over random crops, 30 of 90 x 90 pixels of 299 x 299 in the code by
which Athalye et al. (2018) broke it (with EOT; crops are differentiable). Our choices: places are whole pixels, the
share of the side is larger by default because our images are small, and crops are resized bilinearly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from robust_nas.config import Count, Number
from robust_nas.defences.defence import RandomDefence
from robust_nas.errors import ConfigError
from robust_nas.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.defences.defended import Defended


class CropResize(RandomDefence):
    """The answer is the mean softmax over `samples` random crops; `share` is a crop's side by the image's, 0..1."""

    name: Literal["crop-resize"] = "crop-resize"
    share: Annotated[Number, Field(gt=0, lt=1)] = 0.75  # side of a crop by that of the image
    samples: Count = 30  # crops of an answer

    def refuse_images(self, shape: tuple[int, ...], classes: int) -> None:
        """Raise `ConfigError` where the crop of an image is all of it."""
        height, width = shape[1:]
        if crop_side(height, self.share) == height and crop_side(width, self.share) == width:
            raise ConfigError(
                f"defence crop-resize: share {self.share:g} of {height} x {width} pixels leaves nothing to draw; "
                "a smaller share is needed"
            )

    def build(self, network: nn.Module, values: Mapping[str, float]) -> Defended:
        """Return the network behind one random crop for each image."""
        from robust_nas.defences.defended import BeforeNetwork

        class Cropped(BeforeNetwork):
            def transformed(self, x: Tensor) -> Tensor:
                return random_crops(x, share)

        share = self.share
        return Cropped(network, self, values)


def crop_side(side: int, share: float) -> int:
    """Return the pixels of a crop's side, at least one."""
    return max(1, round(share * side))


def random_crops(x: Tensor, share: float) -> Tensor:
    """Return a random crop of each image `[B, C, H, W]`, resized to H x W; drawn from torch's global generators."""
    images, _, height, width = x.shape
    h, w = crop_side(height, share), crop_side(width, share)
    top = torch.randint(height - h + 1, (images, 1, 1), device=x.device)
    left = torch.randint(width - w + 1, (images, 1, 1), device=x.device)
    rows = top + torch.arange(h, device=x.device).view(1, h, 1)
    columns = left + torch.arange(w, device=x.device).view(1, 1, w)
    image = torch.arange(images, device=x.device).view(images, 1, 1)
    crops = x[image, :, rows, columns].permute(0, 3, 1, 2)  # [B, h, w, C] -> [B, C, h, w]
    return F.interpolate(crops, size=(height, width), mode="bilinear", align_corners=False)
