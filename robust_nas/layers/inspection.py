"""Report whether a module is as its class built it: nothing in it replaced, hooked or parametrised."""

from __future__ import annotations

from typing import cast

from torch import nn

from robust_nas.layers.batch_norm import NORMS
from robust_nas.layers.factorised_reduction import FactorizedReduce
from robust_nas.layers.relu_conv_bn import ReLUConvBN
from robust_nas.layers.separable_conv import SeparableConv

KNOWN = (
    nn.AvgPool2d,
    nn.Conv2d,
    nn.Identity,
    nn.MaxPool2d,
    nn.ReLU,
    nn.Sequential,
    FactorizedReduce,
    ReLUConvBN,
    SeparableConv,
)


def has_hooks(module: nn.Module) -> bool:
    """Return whether calling the module does more than its `forward`."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def is_unchanged(module: nn.Module) -> bool:
    """Return whether all parts of a module are known layers without hooks, and its batch norms those of a supernet.

    Those have no weights of their own, and running statistics that move by a fixed momentum. All are in one mode.
    """
    modes = set()
    for part in module.modules():
        if has_hooks(part):
            return False
        if type(part) in NORMS:
            norm = cast(nn.BatchNorm2d, part)
            modes.add((norm.training, norm.track_running_stats))
            if norm.affine or norm.momentum is None or norm.running_mean is None:
                return False
        elif type(part) not in KNOWN:
            return False
    return len(modes) <= 1
