"""Parameters and MACs of an architecture and of its parts, analytically and without torch.

MACs are multiply-adds of convolutions and linear layers (those of squeeze-and-excitation too); batch norm, activations,
pooling, additions and the gating count as zero. Equal to torch's own count on the built module
(`torch.utils.flop_counter`, FLOPs = 2 x MACs), which the tests hold against it. The auxiliary head is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from robust_nas.errors import ArchitectureError
from robust_nas.spaces import mlp, residual
from robust_nas.spaces.architecture import Architecture, CellArchitecture
from robust_nas.spaces.mlp import MLPArchitecture
from robust_nas.spaces.operations import (
    OPERATIONS,
    Cost,
    Part,
    batch_norm,
    factorized_reduce,
    linear,
    pointwise,
    total,
)
from robust_nas.spaces.residual import ResidualArchitecture


def count(
    architecture: Architecture, input_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10
) -> Cost:
    """Parameters and MACs per image of the final network on `input_shape` = (C, H, W)."""
    return total(part.cost for part in parts(architecture, input_shape, classes))


def parts(
    architecture: Architecture, input_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10
) -> list[Part]:
    """The costs of `stem`, `stage 1`, ..., `head`, which sum to `count`.

    Every hidden layer of an MLP is a stage, and it has no stem. The stages of a cell network are those of its layout: a
    reduction cell begins the next one.
    """
    if min(*input_shape, classes) < 1:
        raise ArchitectureError(f"input {input_shape} with {classes} classes; positive numbers are needed")
    if isinstance(architecture, ResidualArchitecture):
        return list(residual.parts(architecture, input_shape, classes))
    if isinstance(architecture, MLPArchitecture):
        return list(mlp.parts(architecture, input_shape, classes))
    return list(_cell_parts(architecture, input_shape, classes))


def _cell_parts(
    architecture: CellArchitecture, input_shape: tuple[int, int, int], classes: int
) -> Iterator[Part]:
    """Cell by cell with the resolutions of its two inputs."""
    colours, height, width = input_shape
    stem = architecture.layout.stem * architecture.channels
    yield Part(
        "stem", Cost(colours * stem * 9, colours * stem * 9 * height * width).plus(batch_norm(stem, True))
    )
    stages = [Cost(0, 0)] * len(architecture.layout.stages)
    size = (height, width)  # of the cell's second input, and of its output unless it reduces
    for place in architecture.places():
        pixels = size[0] * size[1]
        adapt = factorized_reduce if place.reduction_prev else pointwise
        costs = [adapt(place.c_pp, place.c, pixels, True), pointwise(place.c_p, place.c, pixels, True)]
        if place.reduction:
            size = (-(-size[0] // 2), -(-size[1] // 2))
        pixels = size[0] * size[1]
        cell = architecture.cell(place.kind)
        for node in cell.nodes:
            for operation, source in node:
                stride = 2 if place.reduction and source < 2 else 1
                costs.append(OPERATIONS.get(operation).cost(place.c, stride, pixels, True))
        stages[place.stage] = total([stages[place.stage], *costs])
    for number, cost in enumerate(stages, 1):
        yield Part(f"stage {number}", cost)
    yield Part("head", linear(place.c * len(cell.concat), classes))
