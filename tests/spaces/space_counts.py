"""Networks in the notation of the papers, and what torch counts of them."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from robust_nas.nets import build_network
from robust_nas.spaces import Architecture, Cost, ResidualArchitecture

Shape = tuple[int, int, int]


def residual(depths: tuple[int, ...], factors: tuple[int, ...]) -> ResidualArchitecture:
    """A network in the notation of the papers: blocks and widening factor of each stage."""
    widths = tuple(16 * 2**stage * factor for stage, factor in enumerate(factors))
    return ResidualArchitecture(name="mine", depths=depths, widths=widths)


def torch_count(architecture: Architecture, shape: Shape, classes: int) -> Cost:
    """Parameters and half the FLOPs that torch counts on the meta device."""
    with torch.device("meta"):
        network = build_network(architecture, input_shape=shape, classes=classes).eval()
        images = torch.empty(1, *shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert network(images).shape == (1, classes)
    return Cost(sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2)
