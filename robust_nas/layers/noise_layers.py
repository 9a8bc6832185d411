"""Gaussian noise on the inputs of a network's convolutions, in a network that stays as it is (RSE, Liu et al. 2018).

    conv_1(z + std_init e),   conv_l(z + std_inner e)   l > 1,      e ~ N(0, I), fresh in every forward pass

The first convolution is the first one that the network registers. A layer in factors is one convolution, as it was.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from robust_nas.errors import ConfigError
from robust_nas.layers.cuts import Change
from robust_nas.layers.factorised_layer import FactorisedLayer
from robust_nas.layers.low_rank import LowRankLinear

Draw = Callable[[Tensor], Tensor]  # standard normal noise of the shape of z


def convolutions(network: nn.Module) -> list[nn.Module]:
    """Return the convolutions of a network, in the order in which they are registered."""
    factorised = [module for module in network.modules() if isinstance(module, FactorisedLayer)]
    parts = {id(part) for module in factorised for part in module.modules() if part is not module}
    return [
        module
        for module in network.modules()
        if isinstance(module, nn.Conv2d | FactorisedLayer)
        and not isinstance(module, LowRankLinear)
        and id(module) not in parts
    ]


def noise_layers(
    network: nn.Module, std_init: float, std_inner: float, draw: Draw, key: str
) -> dict[tuple[nn.Module, int], Change]:
    """Return what happens to the input of every convolution, as `cuts.changed_inputs` takes it; no noise, no entry.

    Raises `ConfigError` for a network without convolutions.
    """
    found = convolutions(network)
    if not found:
        raise ConfigError(
            f"{key}: noise layers precede convolutions, and {type(network).__name__} has none (nn.Conv2d)"
        )
    stds = [std_init, *[std_inner] * (len(found) - 1)]
    return {(module, 0): _adding(std, draw) for module, std in zip(found, stds, strict=True) if std > 0}


def _adding(std: float, draw: Draw) -> Change:
    return lambda z: z + std * draw(z)


def with_changed_inputs(network: nn.Module, changes: Mapping[tuple[nn.Module, int], Change]) -> nn.Module:
    """Return a second tree of modules that shares all tensors of a network, in which inputs of modules are changed.

    The network itself gets no hooks, so that it can be called meanwhile, by another thread too. The tree is of the
    moment: make it for one forward pass. A module is found in it where it is registered; one that its parent also keeps
    in a list of its own is called without the change.
    """
    copies: dict[int, nn.Module] = {}

    def copied(module: nn.Module) -> nn.Module:
        if id(module) not in copies:
            own: nn.Module = object.__new__(type(module))
            copies[id(module)] = own
            children = {
                name: None if child is None else copied(child) for name, child in module._modules.items()
            }
            vars(own).update(
                vars(module), _modules=children, _forward_pre_hooks=OrderedDict(module._forward_pre_hooks)
            )
        return copies[id(module)]

    tree = copied(network)
    for (module, number), change in changes.items():
        copies[id(module)].register_forward_pre_hook(_replacing(number, change))
    return tree


def _replacing(number: int, change: Change) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def replace(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*given[:number], change(given[number]), *given[number + 1 :])

    return replace
