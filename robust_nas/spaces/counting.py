"""Parameters and MACs of an architecture, analytically and without torch.

Follows a cell network cell by cell with the resolutions of its two inputs, a residual network layer by layer. Equal to
torch's own count on the built module (`torch.utils.flop_counter`, FLOPs = 2 x MACs), which the tests hold against it.
The auxiliary head is not counted.
"""

from __future__ import annotations

from robust_nas.errors import ArchitectureError
from robust_nas.spaces.architecture import Architecture
from robust_nas.spaces.operations import OPERATIONS, Cost, batch_norm, factorized_reduce, pointwise
from robust_nas.spaces.residual import ResidualArchitecture, layers


def count(
    architecture: Architecture, input_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10
) -> Cost:
    """Parameters and MACs per image of the final network on `input_shape` = (C, H, W)."""
    colours, height, width = input_shape
    if min(colours, height, width, classes) < 1:
        raise ArchitectureError(f"input {input_shape} with {classes} classes; positive numbers are needed")
    if isinstance(architecture, ResidualArchitecture):
        costs = list(layers(architecture, input_shape, classes))
        return Cost(sum(cost.params for cost in costs), sum(cost.macs for cost in costs))
    stem = architecture.layout.stem * architecture.channels
    total = Cost(colours * stem * 9, colours * stem * 9 * height * width).plus(batch_norm(stem, True))
    size = (height, width)  # of the cell's second input, and of its output unless it reduces
    for place in architecture.places():
        pixels = size[0] * size[1]
        adapt = factorized_reduce if place.reduction_prev else pointwise
        total = total.plus(adapt(place.c_pp, place.c, pixels, True))
        total = total.plus(pointwise(place.c_p, place.c, pixels, True))
        if place.reduction:
            size = (-(-size[0] // 2), -(-size[1] // 2))
        pixels = size[0] * size[1]
        cell = architecture.cell(place.kind)
        for node in cell.nodes:
            for operation, source in node:
                stride = 2 if place.reduction and source < 2 else 1
                total = total.plus(OPERATIONS[operation](place.c, stride, pixels, True))
    features = place.c * len(cell.concat)
    return total.plus(Cost((features + 1) * classes, features * classes))
