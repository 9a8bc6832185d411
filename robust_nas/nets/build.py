"""From an architecture (plain data) to a network (torch module), seeded without touching the global generator."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, overload

import torch
from torch import nn

from robust_nas.errors import ArchitectureError
from robust_nas.nets.mlp import MLPNetwork
from robust_nas.nets.network import CellNetwork, CellPlan
from robust_nas.nets.residual import BlockPlan, ResidualNetwork, StagePlan
from robust_nas.spaces import Architecture, CellArchitecture, MLPArchitecture, ResidualArchitecture
from robust_nas.spaces.residual import BLOCKS

Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network) -> Network:
    """The network with its convolution weights in channels-last memory order, in place; the values stay."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch leaves it out of its stubs
    return network


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's CPU generator seeded inside, and as it was outside: module constructors know no other."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
        yield


def plans(architecture: CellArchitecture) -> list[CellPlan]:
    """The cells of an architecture as the plain numbers a network is built from."""
    result = []
    for place in architecture.places():
        cell = architecture.cell(place.kind)
        nodes = tuple(tuple((edge.operation, edge.source) for edge in node) for node in cell.nodes)
        result.append(
            CellPlan(
                place.c_pp, place.c_p, place.c, place.reduction, place.reduction_prev, nodes, cell.concat
            )
        )
    return result


def stage_plans(architecture: ResidualArchitecture) -> list[StagePlan]:
    """The stages of an architecture as the plain numbers a network is built from."""
    return [StagePlan(*stage) for stage in architecture.stages()]


def block_plan(architecture: ResidualArchitecture) -> BlockPlan:
    """The blocks of an architecture as the plain numbers a network is built from."""
    own = {name: getattr(architecture, name) for name in BLOCKS[architecture.block]}
    return BlockPlan(architecture.block, **own)


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
) -> CellNetwork | ResidualNetwork | MLPNetwork: ...
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
) -> CellNetwork | ResidualNetwork | MLPNetwork:
    """The network of an architecture with weights drawn from `seed`; mean and std default to 0 and 1.

    With `auxiliary`, a second classifier stands behind the last reduction cell, as in DARTS; without `affine`, batch
    norms of the cells neither scale nor shift. Raises `ArchitectureError` where the feature maps are too small for the
    classifier, and for a residual network or an MLP, which have neither choice.
    """
    colours = input_shape[0]
    mean, std = mean or (0.0,) * colours, std or (1.0,) * colours
    if not isinstance(architecture, CellArchitecture) and (auxiliary or not affine):
        raise ArchitectureError(
            f"{architecture.name}: got auxiliary={auxiliary}, affine={affine}; "
            f"{architecture.called} is built with auxiliary=False, affine=True"
        )
    if isinstance(architecture, ResidualArchitecture):
        with seeded(seed):
            return ResidualNetwork(
                stage_plans(architecture),
                architecture.stem,
                classes,
                mean,
                std,
                block_plan(architecture),
                architecture.activation,
                architecture.initialisation,
            )
    if isinstance(architecture, MLPArchitecture):
        with seeded(seed):
            return MLPNetwork(
                math.prod(input_shape),
                architecture.depth,
                architecture.width,
                classes,
                mean,
                std,
                architecture.activation,
                architecture.initialisation,
            )
    cell_plans = plans(architecture)
    with seeded(seed):
        network = CellNetwork(cell_plans, classes, mean, std, affine)
        if auxiliary:
            index = max(
                (i for i, plan in enumerate(cell_plans) if plan.reduction), default=len(cell_plans) - 1
            )
            halvings = sum(plan.reduction for plan in cell_plans)
            height, width = (-(-side // 2**halvings) for side in input_shape[1:])
            if min(height, width) < 4:
                raise ArchitectureError(
                    f"auxiliary head: needs feature maps of at least 4x4 behind cell {index}, got {height}x{width} "
                    f"from an input of {input_shape[1]}x{input_shape[2]}; train with auxiliary_weight 0"
                )
            plan = cell_plans[index]
            network.add_auxiliary_head(index, plan.c * len(plan.concat), height, width)
    return network
