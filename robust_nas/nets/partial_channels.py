"""Channels that bypass the operations of an edge (PC-DARTS), and the shuffle that mixes them with the others.

B batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rest_of(x: Tensor, width: int, strided: bool) -> Tensor:
    """Return all but the first `width` channels of `[B, C, H, W]`, of a strided edge the maximum of 2x2 pixels."""
    rest = x[:, width:]
    if not strided:
        return rest
    return F.max_pool2d(rest.contiguous(memory_format=torch.channels_last), 2, 2, ceil_mode=True)


def shuffled(part: Tensor, rest: Tensor) -> Tensor:
    """Return parts 0..k-1 `[B, c, H, W]`, the first and the k - 1 of the rest, channel by channel in turn.

    Channel g c + i goes to i k + g: the channel shuffle of k groups.
    """
    batch, width, height, length = part.shape
    pixels = (batch, height, length)
    own = part.permute(0, 2, 3, 1).unsqueeze(4)
    others = rest.permute(0, 2, 3, 1).reshape(*pixels, -1, width).transpose(3, 4)
    return torch.cat([own, others], dim=4).reshape(*pixels, -1).permute(0, 3, 1, 2)
