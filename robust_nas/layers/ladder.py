"""The decoder of LADDER, G: from a latent back to an image, and its attention A(z).

G is ours, in the manner of the published one (a linear layer, transposed convolutions x2, 3x3 convolutions with batch
norm and ReLU, 1x1, tanh): nearest-neighbour steps of x2 in the place of transposed convolutions, and a sigmoid, because
images lie in 0..1. Every step goes to the size that halving the image's gives there, so that any size works.

B batch, C channels, H height, W width, d numbers of a latent vector, c h w of a latent map.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Attention = Literal["none", "exp", "scaled"]
STEPS = 2  # doublings behind a latent vector


class Decoder(nn.Module):
    """G: latents `[B, d]` or `[B, c, h, w]` of that shape to images `[B, C, H, W]` in 0..1.

    Latents are centred and scaled first, by one number each for the channels of a map or the entries of a vector.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, latent: tuple[int, ...], image: tuple[int, int, int], width: int) -> None:
        super().__init__()
        channels, height, width_of_image = image
        size = (height, width_of_image)
        steps = STEPS if len(latent) == 1 else _doublings(latent[1:], size)
        # Sizes from the first map to the image, each half of the next one, rounded up.
        self.sizes = [tuple(-(-side // 2**step) for side in size) for step in range(steps, -1, -1)]
        shape = latent if len(latent) == 1 else (latent[0], 1, 1)
        self.register_buffer("shift", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))
        self.first: nn.Module
        if len(latent) == 1:
            rows, columns = self.sizes[0]
            self.first = nn.Sequential(
                nn.Linear(latent[0], width * rows * columns), nn.Unflatten(1, (width, rows, columns))
            )
        else:
            self.first = nn.Conv2d(latent[0], width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            )
            for _ in self.sizes
        )
        self.last = nn.Conv2d(width, channels, 1)

    def standardise(self, latents: Tensor) -> None:
        """Take centre and scale from latents `[N, d]` or `[N, c, h, w]`."""
        dims = (0,) if latents.dim() == 2 else (0, 2, 3)
        deviation, mean = torch.std_mean(latents, dims, correction=0, keepdim=True)
        smallest = 1e-3 * deviation.mean().clamp_min(1e-12)
        self.shift.copy_(mean[0])
        self.scale.copy_(1 / deviation[0].clamp_min(smallest))

    def forward(self, z: Tensor) -> Tensor:
        """Return images `[B, C, H, W]` in 0..1."""
        x: Tensor = self.first((z - self.shift) * self.scale)
        for size, block in zip(self.sizes, self.blocks, strict=True):
            if tuple(x.shape[2:]) != size:
                x = F.interpolate(x, size=size, mode="nearest")
            x = block(x)
        return torch.sigmoid(self.last(x))


def _doublings(small: tuple[int, ...], large: tuple[int, ...]) -> int:
    """Return how often a map is doubled until it covers the image."""
    steps = 0
    while any(side * 2**steps < whole for side, whole in zip(small, large, strict=True)):
        steps += 1
    return steps


def attention(z: Tensor, kind: Attention) -> Tensor:
    """Return A(z) `[B, d]` of flat latents `[B, d]`; ones where there is none.

    none: 1;   exp: exp(softmax(tanh(z))), the published form;   scaled: d softmax(tanh(z))

    The published one has a 1x1 convolution inside, trained with the SVM; here it is the identity. A softmax over d
    numbers of tanh is at most e^2/d or so: exp of it is practically 1 (at most 1.0144 at d = 512).
    """
    if kind == "none":
        return torch.ones_like(z)
    shares = z.tanh().softmax(1)
    return shares.exp() if kind == "exp" else z.shape[1] * shares
