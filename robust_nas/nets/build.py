"""From an architecture (plain data) to a network (torch module), seeded without touching the global generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, overload

import torch
from torch import nn

from robust_nas.errors import ArchitectureError
from robust_nas.nets.network import CellNetwork
from robust_nas.spaces import Architecture, CellArchitecture

Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network) -> Network:
    """Return the network with its convolution weights in channels-last memory order, in place; the values stay."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch leaves it out of its stubs
    return network


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator inside, and leave it as it was: module constructors know no other."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
        yield


@overload
def build_network(
    architecture: CellArchitecture,
    *,
    input_shape: tuple[int, int, int] = ...,
    classes: int = ...,
    mean: tuple[float, ...] | None = ...,
    std: tuple[float, ...] | None = ...,
    affine: bool = ...,
    auxiliary: bool = ...,
    seed: int = ...,
) -> CellNetwork: ...
@overload
def build_network(
    architecture: Architecture,
    *,
    input_shape: tuple[int, int, int] = ...,
    classes: int = ...,
    mean: tuple[float, ...] | None = ...,
    std: tuple[float, ...] | None = ...,
    auxiliary: bool = ...,
    seed: int = ...,
) -> nn.Module: ...
def build_network(
    architecture: Architecture,
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    affine: bool = True,
    auxiliary: bool = False,
    seed: int = 0,
) -> nn.Module:
    """Return the network of an architecture with weights drawn from `seed`; mean and std default to 0 and 1.

    With `auxiliary`, a second classifier follows the last reduction cell, as in DARTS; without `affine`, batch
    norms of the cells neither scale nor shift. Raises `ArchitectureError` where the feature maps are too small for the
    classifier, and for a family without these choices.
    """
    channels = input_shape[0]
    mean, std = mean or (0.0,) * channels, std or (1.0,) * channels
    allowed = (architecture.supports_auxiliary_head or not auxiliary) and (architecture.has_cells or affine)
    if not allowed:
        raise ArchitectureError(
            f"{architecture.name}: got auxiliary={auxiliary}, affine={affine}; "
            f"{architecture.called} is built with auxiliary=False, affine={affine or not architecture.has_cells}"
        )
    place = architecture.auxiliary_head(input_shape) if auxiliary else None
    options: dict[str, Any] = architecture.arguments(input_shape)
    if not affine:
        options["affine"] = False
    network_class = architecture.network_class()
    with seeded(seed):
        network = network_class(classes=classes, mean=mean, std=std, **options)
        if place is not None:
            network.add_auxiliary_head(*place)  # type: ignore[operator] # torch types every attribute alike
    return network
