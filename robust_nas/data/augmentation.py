"""Augmentation of a batch on its device: random crop, horizontal flip, cutout.

Crop and flip: zero padding, then a random window of the original size, mirrored with probability 1/2.
Cutout: DeVries and Taylor 2017 (arXiv:1708.04552) with DARTS's rule: the square's centre falls anywhere in
the image and the square is clipped at the borders. Two choices of ours: an odd side is honoured (DARTS cuts
side - 1), and the square is black (DARTS: the mean colour), because a model here normalises by itself.

Legend: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_nas.data.options import Augment
from robust_nas.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor


def augment(pixels: Tensor, options: Augment, generator: torch.Generator) -> Tensor:
    """Return augmented images, float32 [B, C, H, W] in 0..1, on the device of `pixels`.

    Each image has its own draws. They are taken on the generator's device in a fixed order (crop rows, crop
    columns, flips, cutout rows, cutout columns; a step that is off draws nothing), so that a CPU generator
    gives the same augmentation on every device. With all steps off the result is exactly `pixels / 255`.

    Args:
        pixels: uint8 [B, C, H, W].
        options: which steps, and how strong.
        generator: the only source of randomness; it is advanced.
    """
    B, _, H, W = pixels.shape
    device = pixels.device

    def draw(high: int) -> Tensor:
        return torch.randint(high, (B, 1), generator=generator, device=generator.device).to(device)

    rows = torch.arange(H, device=device)
    columns = torch.arange(W, device=device)

    if options.crop:
        top, left = draw(2 * options.crop + 1), draw(2 * options.crop + 1)
        mirrored = draw(2).bool() if options.flip else torch.zeros_like(top, dtype=torch.bool)
        padded = F.pad(pixels, (options.crop,) * 4)
        cropped_rows = top + rows  # [B, H]
        cropped_columns = left + torch.where(mirrored, W - 1 - columns, columns)  # [B, W]
        pixels = _gather(padded, cropped_rows, cropped_columns)
    elif options.flip:
        pixels = torch.where(draw(2).bool()[:, :, None, None], pixels.flip(3), pixels)

    if options.cutout:
        from_row = draw(H) - options.cutout // 2
        from_column = draw(W) - options.cutout // 2
        in_rows = (rows >= from_row) & (rows < from_row + options.cutout)  # [B, H]
        in_columns = (columns >= from_column) & (columns < from_column + options.cutout)  # [B, W]
        square = in_rows[:, None, :, None] & in_columns[:, None, None, :]  # [B, 1, H, W]
        pixels = pixels.masked_fill(square, 0)

    return pixels.to(torch.float32) / 255


def _gather(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return [B, C, H, W] with `pixels[b, c, rows[b, h], columns[b, w]]` at b, c, h, w."""
    B, C, _, padded_width = pixels.shape
    H, W = rows.shape[1], columns.shape[1]
    places = (rows[:, :, None] * padded_width + columns[:, None, :]).view(B, 1, H * W)
    # gather on flat images: advanced indexing with four index tensors took eight times as long on the CPU
    return pixels.flatten(2).gather(2, places.expand(B, C, H * W)).view(B, C, H, W)
