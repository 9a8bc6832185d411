"""Parameters and MACs of any torch module, measured by torch's own counter on one forward pass.

MACs are multiply-adds of convolutions and matrix products, per image; all else counts as zero. For a network from an
architecture they equal `robust_nas.count`, which needs no torch.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from robust_nas.spaces import Cost


def measured_cost(network: nn.Module, input_shape: tuple[int, int, int]) -> Cost:
    """Return parameters and MACs of one image of `input_shape` = (C, H, W) in eval mode; a copy is run.

    One on the meta device, which has no values, is run there.
    """
    own = copy.deepcopy(network).eval()
    parameter = next(own.parameters(), None)
    device = torch.device("cpu") if parameter is None or not parameter.is_meta else parameter.device
    own.to(device)
    dtype = torch.float32 if parameter is None else parameter.dtype
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        own(torch.zeros(1, *input_shape, dtype=dtype, device=device))
    params = sum(
        tensor.numel() for name, tensor in own.named_parameters() if not name.startswith("auxiliary.")
    )
    return Cost(params, counter.get_total_flops() // 2)
