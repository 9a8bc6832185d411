"""AI-GAN's networks: a generator of targeted perturbations, and a discriminator of images.

    generator      u = up(blocks(down(concat(x, one-hot t))))         t: the target, a constant plane for each class
                   G(x, t) = eps tanh(u)                              Linf
                             eps tanh(||u||_2) u / ||u||_2            L2
    discriminator  D(x) = mean over positions of the scores of three 4x4 convolutions of stride 2

The bound is hard: no weights make a perturbation longer than eps. One generator serves all target classes.

Source: AI-GAN, Bai et al. (arXiv 2002.02196; 2111.10055) for the two networks and the condition. Its layers were not
available to us; those of AdvGAN's public code (mathcbc/advGAN_pytorch) are taken: three convolutions down with 8, 16
and 32 channels, four residual blocks, three up, instance norm; a discriminator of three 4x4 convolutions with leaky
ReLU. Ours: the first convolution has no instance norm, which would subtract the constant planes of the target again,
and the others have scales and shifts by target (Dumoulin et al., 2017); the transposed convolutions give the sizes back
that the strided ones met, so that every size from 8 x 8 on works; the discriminator has spectral norm (Miyato et al.,
2018) instead of batch norm, and scores positions.

B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

LEAST_SIDE = 8  # pixels: three strided convolutions of the discriminator leave one position of them
NORMS = ("linf", "l2")  # in which it has a bound
NEAR_EPS = 3.0  # by which the root mean square of what a bounded perturbation is made of is multiplied, in L2
SLOPE = 0.2  # of the leaky ReLU
SPREAD = 0.3  # standard deviation of the first scales and shifts, so that targets differ from the start


def bounded(u: Tensor, eps: float, norm: str) -> Tensor:
    """Return the perturbation `[B, C, H, W]` that `u` of any size encodes: its norm is at most eps."""
    delta: Tensor
    if norm == "linf":
        delta = eps * torch.tanh(u)
        return delta
    # The norm has no gradient at 0, where the ratio tends to 1. Its root mean square, and not its length, which grows
    # with the pixels, is what tanh sees: otherwise every perturbation has length eps, without a gradient of it.
    length = torch.linalg.vector_norm(u, dim=(1, 2, 3), keepdim=True).clamp_min(torch.finfo(u.dtype).tiny)
    near = NEAR_EPS * length / u[0].numel() ** 0.5
    delta = eps * (torch.tanh(near) / length) * u
    return delta


class ConditionalNorm(nn.Module):
    """Instance norm with a scale and a shift of each channel for each target class (Dumoulin et al., 2017)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.affine = nn.Embedding(classes, 2 * channels)
        nn.init.normal_(self.affine.weight, std=SPREAD)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return `[B, channels, H, W]` of the same shape; `targets` is `[B]`."""
        scale, shift = self.affine(targets)[:, :, None, None].chunk(2, dim=1)
        normed: Tensor = F.instance_norm(x) * (1 + scale) + shift
        return normed


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance norm, added to the input."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1, self.norm2 = (ConditionalNorm(channels, classes) for _ in range(2))

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return `[B, channels, H, W]` of the same shape."""
        hidden = F.relu(self.norm1(self.conv1(x), targets))
        residual: Tensor = self.norm2(self.conv2(hidden), targets)
        return x + residual


class Generator(nn.Module):
    """G(x, t): a perturbation of at most eps that is to make the victim answer t for x.

    `shape` is that of an image (C, H, W); `widths` are the channels of the three convolutions down. Raises `ValueError`
    for a norm but `linf` and `l2`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        *,
        norm: str,
        eps: float,
        widths: Sequence[int] = (8, 16, 32),
        blocks: int = 4,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm is {norm!r}; allowed for a generator: {', '.join(NORMS)}")
        self.shape, self.classes, self.norm, self.eps = shape, classes, norm, eps
        first, second, third = widths
        self.enter = nn.Conv2d(shape[0] + classes, first, 3, padding=1)
        self.down1 = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(second, third, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(third, classes) for _ in range(blocks))
        self.up1 = nn.ConvTranspose2d(third, second, 3, stride=2, padding=1)
        self.up2 = nn.ConvTranspose2d(second, first, 3, stride=2, padding=1)
        self.leave = nn.Conv2d(first, shape[0], 3, padding=1)
        self.norm_down1, self.norm_up1 = (ConditionalNorm(second, classes) for _ in range(2))
        self.norm_down2, self.norm_up2 = (ConditionalNorm(channels, classes) for channels in (third, first))

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return perturbations `[B, C, H, W]` of images in 0..1 towards the classes `targets` `[B]`."""
        condition = F.one_hot(targets, self.classes).to(x.dtype)
        planes = condition[:, :, None, None].expand(-1, -1, *x.shape[2:])
        whole = F.relu(self.enter(torch.cat([x, planes], dim=1)))
        half = F.relu(self.norm_down1(self.down1(whole), targets))
        quarter = F.relu(self.norm_down2(self.down2(half), targets))
        for block in self.blocks:
            quarter = block(quarter, targets)
        # An odd side and the even one above it have the same half: the size that is meant is given.
        half = F.relu(self.norm_up1(self.up1(quarter, output_size=half.shape[2:]), targets))
        whole = F.relu(self.norm_up2(self.up2(half, output_size=whole.shape[2:]), targets))
        return bounded(self.leave(whole), self.eps, self.norm)


class Discriminator(nn.Module):
    """D(x): a score for each image, without a final sigmoid; high for those that look real."""

    def __init__(self, channels: int, widths: Sequence[int] = (8, 16, 32)) -> None:
        super().__init__()
        sizes = (channels, *widths)
        self.convs = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1))
            for before, after in pairwise(sizes)
        )
        self.score = spectral_norm(nn.Conv2d(sizes[-1], 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return scores `[B]` of images `[B, C, H, W]`."""
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE)
        scores: Tensor = self.score(x).mean((1, 2, 3))
        return scores
