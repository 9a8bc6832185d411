"""Operations for the tests: a plugin without a fold of its own, and supernets of one function."""

import copy

import torch
from extending import example
from torch import nn

from robust_nas.nets import Supernet, channels_last
from robust_nas.spaces import load_space

GATED = (
    example("gated.py")
    + """

class Unnamed(Gated):
    layer = None

    @classmethod
    def build(cls, channels, stride, affine):
        return Gate(channels, stride, affine)
"""
)


def pair(operations, reduction_cells=4, channels=4, seed=0, changes=None):
    """A fused and a plain supernet in float64 of the same weights, alphas and statistics, none of them trivial."""
    space = load_space("dsara", {"nodes": 2, "operations": list(operations), **(changes or {})})
    fused = Supernet(space, 5, 3, channels, reduction_cells)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for alpha in fused.alphas.values():
            alpha.copy_(torch.randn(alpha.shape, generator=generator))
        for module in fused.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator))
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    fused = channels_last(fused.double())
    plain = copy.deepcopy(fused)
    plain.execution = "plain"
    return fused, plain


def batch(side, count=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, side, side, generator=generator, dtype=torch.float64)
    return x.contiguous(memory_format=torch.channels_last), torch.randint(5, (count,), generator=generator)
