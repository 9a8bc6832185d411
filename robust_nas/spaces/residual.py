"""Residual networks by stages of basic blocks: wide residual networks, and any depths and widths per stage.

A stage is `depth` blocks of `width` channels; its first block has the stage's stride. WRN-D-k (Zagoruyko and Komodakis,
2016) is depths n, n, n with D = 6n + 4 and widths 16k, 32k, 64k behind a stem of 16 channels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from robust_nas.config import Count, Options, check, to_yaml
from robust_nas.errors import ArchitectureError
from robust_nas.spaces.layout import MAX_FILTERS, Name
from robust_nas.spaces.operations import Cost, batch_norm

MAX_BLOCKS = 1000
WIDE_RESNETS = "wrn-D-k with D = 6n + 4, such as wrn-28-10"  # the names that `wide_resnet` reads

Width = Annotated[Count, Field(le=MAX_FILTERS)]
Stride = Annotated[Count, Field(le=3)]  # beyond it, a 3x3 convolution never sees some pixels


class Stage(NamedTuple):
    """Blocks of one width; the first one has the stride."""

    depth: int
    width: int
    stride: int


class ResidualArchitecture(Options):
    """A pre-activation residual network: its stem, and depth, width and stride of every stage."""

    schema_version: Literal[1] = 1
    type: Literal["residual"] = "residual"
    name: Name
    block: Literal["basic"] = "basic"
    stem: Width = 16  # channels of the stem's 3x3 convolution
    depths: tuple[Count, ...] = Field(min_length=1)  # blocks of each stage
    widths: tuple[Width, ...] = Field(min_length=1)  # channels of each stage's convolutions
    strides: tuple[Stride, ...] = ()  # of each stage's first block; 1, 2, 2, ... where none are given

    @model_validator(mode="before")
    @classmethod
    def _usual_strides(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and "strides" not in tree and isinstance(tree.get("depths"), list | tuple):
            return {**tree, "strides": [1, *[2] * (len(tree["depths"]) - 1)]}
        return tree

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        stages = len(self.depths)
        for name, given in (("widths", len(self.widths)), ("strides", len(self.strides))):
            if given != stages:
                raise ValueError(f"{name} has {given} entries; {stages} depths need {stages}")
        if sum(self.depths) > MAX_BLOCKS:
            raise ValueError(f"depths: got {sum(self.depths)} blocks; at most {MAX_BLOCKS} are allowed")
        return self

    def stages(self) -> list[Stage]:
        """Every stage from the input to the output."""
        return [Stage(*stage) for stage in zip(self.depths, self.widths, self.strides, strict=True)]

    def describe(self) -> str:
        """The size in words."""
        return f"{'-'.join(map(str, self.depths))} blocks, {'-'.join(map(str, self.widths))} channels"

    def to_yaml(self) -> str:
        """YAML text that `load_architecture` turns back into an equal value."""
        return to_yaml(self)


def wide_resnet(name: str) -> ResidualArchitecture | None:
    """The network that a classical name such as `wrn-28-10` means, None for a name of another form.

    Raises `ArchitectureError` for a depth or a factor that no wide residual network has.
    """
    parts = re.fullmatch(r"wrn-([0-9]{1,9})-([0-9]{1,9})", name, flags=re.IGNORECASE)
    if parts is None:
        return None
    depth, factor = int(parts[1]), int(parts[2])
    blocks, rest = divmod(depth - 4, 6)
    if blocks < 1 or rest:
        nearest = "10" if blocks < 1 else f"{6 * blocks + 4} and {6 * blocks + 10}"
        raise ArchitectureError(f"{name!r}: depth {depth} is not 6n + 4 with n >= 1; nearest: {nearest}")
    if factor < 1:
        raise ArchitectureError(f"{name!r}: the widening factor is {factor}; at least 1 is needed")
    tree = {
        "name": f"wrn-{depth}-{factor}",
        "depths": (blocks,) * 3,
        "widths": (16 * factor, 32 * factor, 64 * factor),
    }
    return check(ResidualArchitecture, tree, repr(name), ArchitectureError)


def layers(
    architecture: ResidualArchitecture, input_shape: tuple[int, int, int], classes: int
) -> Iterator[Cost]:
    """Parameters and MACs of every layer that has any, from the input to the output."""
    channels, height, width = input_shape

    def convolution(c_in: int, c_out: int, kernel: int) -> Cost:
        params = c_in * c_out * kernel**2
        return Cost(params, params * height * width)  # of the output

    yield convolution(channels, architecture.stem, 3)
    channels = architecture.stem
    for stage in architecture.stages():
        for stride in (stage.stride, *[1] * (stage.depth - 1)):
            height, width = -(-height // stride), -(-width // stride)
            yield batch_norm(channels, True)
            yield convolution(channels, stage.width, 3)
            yield batch_norm(stage.width, True)
            yield convolution(stage.width, stage.width, 3)
            if channels != stage.width or stride != 1:
                yield convolution(channels, stage.width, 1)
            channels = stage.width
    yield batch_norm(channels, True)
    yield Cost((channels + 1) * classes, channels * classes)
