"""Report whether a module is as its class built it: nothing in it replaced, hooked or parametrised."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import nn

from robust_nas.layers.batch_norm import NORMS
from robust_nas.layers.factorised_reduction import FactorizedReduce
from robust_nas.layers.relu_conv_bn import ReLUConvBN
from robust_nas.layers.separable_conv import SeparableConv

KNOWN = (nn.AvgPool2d, nn.Conv2d, nn.Identity, nn.MaxPool2d, nn.ReLU, nn.Sequential)


def _is_relu(module: nn.Module | None) -> bool:
    return type(module) is nn.ReLU


def _is_norm(module: nn.Module | None) -> bool:
    return type(module) in NORMS


def _is_dense(module: nn.Module | None) -> bool:
    return type(module) is nn.Conv2d and module.groups == 1 and _is_centred(module)


def _is_pointwise(module: nn.Module | None) -> bool:
    return _is_dense(module) and cast(nn.Conv2d, module).kernel_size == (1, 1)


def _is_depthwise(module: nn.Module | None) -> bool:
    return (
        type(module) is nn.Conv2d
        and module.groups == module.in_channels == module.out_channels
        and _is_centred(module)
    )


def _is_centred(convolution: nn.Conv2d) -> bool:
    """Return whether a convolution has no bias, and pads with as many zeros as keep the size at stride 1."""
    (height, width), (down, right) = convolution.kernel_size, convolution.dilation
    same = (down * (height - 1) // 2, right * (width - 1) // 2)
    return convolution.bias is None and convolution.padding == same and convolution.padding_mode == "zeros"


# What a layer is made of, in its order; a separable convolution is made of it once or more often.
PARTS: dict[type[nn.Module], tuple[Callable[[nn.Module | None], bool], ...]] = {
    FactorizedReduce: (_is_pointwise, _is_pointwise, _is_norm),
    ReLUConvBN: (_is_relu, _is_dense, _is_norm),
    SeparableConv: (_is_relu, _is_depthwise, _is_pointwise, _is_norm),
}


def has_hooks(module: nn.Module) -> bool:
    """Return whether calling the module does more than its `forward`."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def has_its_parts(module: nn.Module) -> bool:
    """Return whether a layer of ours (`PARTS`) is still made of what its class put into it."""
    kinds, parts = PARTS[type(module)], list(module._modules.values())
    repeats, rest = divmod(len(parts), len(kinds))
    if rest or not (repeats == 1 or (repeats and type(module) is SeparableConv)):
        return False
    return all(is_kind(part) for is_kind, part in zip(kinds * repeats, parts, strict=True))


def is_unchanged(module: nn.Module) -> bool:
    """Return whether all parts of a module are known layers without hooks, and its batch norms those of a supernet.

    Those have no weights of their own, and running statistics that move by a fixed momentum. All are in one mode.
    Whoever reads a part of a layer of ours asks this first: a user may have replaced it.
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
        elif type(part) in PARTS:
            if not has_its_parts(part):
                return False
        elif type(part) not in KNOWN:
            return False
    return len(modes) <= 1
