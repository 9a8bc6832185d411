"""Parameters and MACs of an architecture and of its parts, analytically and without torch.

MACs are multiply-adds of convolutions and linear layers (those of squeeze-and-excitation and inside an activation too);
batch norm, functions of single numbers, pooling, additions and the gating count as zero. Equal to torch's own count on
the built module (`torch.utils.flop_counter`, FLOPs = 2 x MACs), which the tests hold against it. The auxiliary head is
not counted.
"""

from __future__ import annotations

from robust_nas.errors import ArchitectureError
from robust_nas.operations.cost import Cost, Part, total
from robust_nas.spaces.architecture import Architecture


def count(
    architecture: Architecture, input_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10
) -> Cost:
    """Return parameters and MACs per image of the final network on `input_shape` = (C, H, W)."""
    return total(part.cost for part in parts(architecture, input_shape, classes))


def parts(
    architecture: Architecture, input_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10
) -> list[Part]:
    """Return the costs of `stem`, `stage 1`, ..., `head`, which sum to `count`.

    Every hidden layer of an MLP is a stage, and it has no stem. The stages of a cell network are those of its layout: a
    reduction begins the next one.
    """
    if min(*input_shape, classes) < 1:
        raise ArchitectureError(f"input {input_shape} with {classes} classes; positive numbers are needed")
    return list(architecture.parts(input_shape, classes))
