"""Residual networks by stages of blocks: wide residual networks, and any depths and widths per stage.

A stage is `depth` blocks of `width` channels; its first block has the stage's stride. WRN-D-k (Zagoruyko and Komodakis,
2016) is depths n, n, n with D = 6n + 4 and widths 16k, 32k, 64k behind a stem of 16 channels. The blocks are those of
`nets/residual.py`: basic, bottleneck, and robust-res (Huang, Lu, Deb and Boddeti, CVPR 2023).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeGuard

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from robust_nas.config import Count, check, to_dict
from robust_nas.errors import ArchitectureError
from robust_nas.operations import ACTIVATIONS, ActivationName
from robust_nas.operations.cost import Cost, Part, batch_norm, convolution, linear, total
from robust_nas.spaces.architecture import Architecture, InputShape, Json, StageSizes
from robust_nas.spaces.layout import MAX_FILTERS

MAX_BLOCKS = 1000
WIDE_RESNETS = (
    "wrn-D-k with D = 6n + 4, such as wrn-28-10 or wrn-28-10.silu"  # the names that `wide_resnet` reads
)

Width = Annotated[Count, Field(le=MAX_FILTERS)]
Stride = Annotated[Count, Field(le=3)]  # beyond it, a 3x3 convolution never sees some pixels
Small = Annotated[Count, Field(le=1024)]

# The numbers of each block next to its width, with usual values: of robust-res, the published RobustResNets'.
BLOCKS: dict[str, dict[str, int | bool]] = {
    "basic": {},
    "bottleneck": {"expansion": 4},
    "robust-res": {
        "expansion": 4,
        "cardinality": 4,
        "scales": 8,
        "base_width": 10,
        "se_reduction": 64,
        "preactivated": True,
    },
}


class Stage(NamedTuple):
    """Blocks of one width; the first one has the stride."""

    depth: int
    width: int
    stride: int


class ResidualArchitecture(Architecture):
    """A pre-activation residual network: its stem and block, and depth, width and stride of every stage."""

    called: ClassVar[str] = "a residual network"
    network: ClassVar[str] = "robust_nas.nets.residual:ResidualNetwork"
    named_as: ClassVar[str] = WIDE_RESNETS
    supports_mixing: ClassVar[bool] = True

    type: Literal["residual"] = "residual"
    block: Literal["basic", "bottleneck", "robust-res"] = "basic"  # kind of residual block
    activation: ActivationName = "relu"  # of every block
    initialisation: Literal["he-fan-out", "he-fan-in", "lecun"] = "he-fan-out"  # of the convolutions
    stem: Width = 16  # channels of the stem's 3x3 convolution
    depths: tuple[Count, ...] = Field(min_length=1)  # blocks of each stage
    widths: tuple[Width, ...] = Field(min_length=1)  # channels of each stage's convolutions
    strides: tuple[Stride, ...] = ()  # of each stage's first block; 1, 2, 2, ... where none are given
    # Of some blocks alone (`BLOCKS`), which have them filled in where they are not given:
    expansion: Small | None = None  # channels of a block's output, relative to its width
    cardinality: Small | None = None  # groups of a 3x3 convolution
    scales: Small | None = None  # parts that the 3x3 convolutions see one after the other
    base_width: Small | None = None  # channels per group and part of a block of width 160, in proportion
    se_reduction: Width | None = None  # of the channels inside the squeeze-and-excitation
    preactivated: bool | None = (
        None  # false: the first convolution sees the raw input, as in the official code
    )

    @model_validator(mode="before")
    @classmethod
    def _usual(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        tree = {
            key: value for key, value in tree.items() if value is not None or key not in BLOCKS["robust-res"]
        }
        block = tree.get("block", "basic")
        tree = {**(BLOCKS.get(block, {}) if isinstance(block, str) else {}), **tree}
        if "strides" not in tree and isinstance(tree.get("depths"), list | tuple):
            tree["strides"] = [1, *[2] * (len(tree["depths"]) - 1)]
        return tree

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        stages = len(self.depths)
        for name, given in (("widths", len(self.widths)), ("strides", len(self.strides))):
            if given != stages:
                raise ValueError(f"{name} has {given} entries; {stages} depths need {stages}")
        if sum(self.depths) > MAX_BLOCKS:
            raise ValueError(f"depths: got {sum(self.depths)} blocks; at most {MAX_BLOCKS} are allowed")
        for name in BLOCKS["robust-res"].keys() - BLOCKS[self.block].keys():
            value = getattr(self, name)
            if value is not None:
                having = " or ".join(block for block, numbers in BLOCKS.items() if name in numbers)
                raise ValueError(
                    f"{name}: got {value}; a {self.block} block has none: leave it out, or choose {having}"
                )
        if self.block == "robust-res":
            narrow = min(self.widths)
            if not self.part_width(narrow):
                raise ValueError(
                    f"widths: got {narrow}; with base_width {self.base_width} a robust-res block needs at least "
                    f"{-(-160 // (self.base_width or 1))}"
                )
            if not self.squeezed(narrow):
                raise ValueError(
                    f"se_reduction: got {self.se_reduction}; a block of width {narrow} has {self.outputs(narrow)} "
                    f"channels, so at most {self.outputs(narrow)} is allowed"
                )
        return self

    @model_serializer(mode="wrap")
    def _without_what_the_block_lacks(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}

    @classmethod
    def named(cls, text: str) -> Self | None:
        """Return the wide residual network of a classical name such as `wrn-28-10`, None for a name of another form.

        A name may end in an activation, `wrn-28-10.silu`, as canonical names do.
        Raises `ArchitectureError` for a depth or a factor that no wide residual network has.
        """
        parts = re.fullmatch(r"wrn-([0-9]{1,9})-([0-9]{1,9})(?:\.([a-z0-9-]+))?", text, flags=re.IGNORECASE)
        if parts is None or parts[3] not in (None, *ACTIVATIONS.names()):
            return None
        depth, factor = int(parts[1]), int(parts[2])
        blocks, rest = divmod(depth - 4, 6)
        if blocks < 1 or rest:
            nearest = "10" if blocks < 1 else f"{6 * blocks + 4} and {6 * blocks + 10}"
            raise ArchitectureError(f"{text!r}: depth {depth} is not 6n + 4 with n >= 1; nearest: {nearest}")
        if factor < 1:
            raise ArchitectureError(f"{text!r}: the widening factor is {factor}; at least 1 is needed")
        tree = {
            "name": f"wrn-{depth}-{factor}" + (f".{parts[3]}" if parts[3] else ""),
            "depths": (blocks,) * 3,
            "widths": (16 * factor, 32 * factor, 64 * factor),
            "activation": parts[3] or "relu",
        }
        return check(cls, tree, repr(text), ArchitectureError)

    def stages(self) -> list[Stage]:
        """Return every stage from the input to the output."""
        return [Stage(*stage) for stage in zip(self.depths, self.widths, self.strides, strict=True)]

    def outputs(self, width: int) -> int:
        """Channels of the output of a block of that width."""
        return width * (self.expansion or 1)

    def part_width(self, width: int) -> int:
        """Channels of one part (scale) of a robust-res block of that width."""
        return width * (self.base_width or 0) // 160 * (self.cardinality or 0)

    def squeezed(self, width: int) -> int:
        """Channels inside the squeeze-and-excitation of a robust-res block of that width."""
        return self.outputs(width) // (self.se_reduction or 1)

    def describe(self) -> str:
        """Return the size in words."""
        block = "" if self.block == "basic" else f"{self.block} "
        return f"{'-'.join(map(str, self.depths))} {block}blocks, {'-'.join(map(str, self.widths))} channels"

    def arguments(self, input_shape: InputShape) -> Json:
        """Return the stages as the plain numbers of a `StagePlan`, the block as those of a `BlockPlan`."""
        return {
            "stages": [tuple(stage) for stage in self.stages()],
            "stem": self.stem,
            "block": {"kind": self.block, **{key: getattr(self, key) for key in BLOCKS[self.block]}},
            "activation": self.activation,
            "initialisation": self.initialisation,
        }

    def activations_used(self) -> frozenset[str]:
        """Return its activation."""
        return frozenset([self.activation])

    def parts(self, input_shape: InputShape, classes: int) -> Iterator[Part]:
        """Yield stem, stages and head; the batch norm behind the last stage belongs to the head."""
        image_channels, height, width = input_shape
        yield Part("stem", convolution(image_channels, self.stem, 3, height * width))
        channels = self.stem
        for number, stage in enumerate(self.stages(), 1):
            before = height * width
            height, width = -(-height // stage.stride), -(-width // stage.stride)
            pixels = height * width
            first = _block(self, channels, stage.width, stage.stride, before, pixels)
            channels = self.outputs(stage.width)
            other = _block(self, channels, stage.width, 1, pixels, pixels)
            held = self.shared_cost(number)
            yield Part(f"stage {number}", first.plus(other.times(stage.depth - 1)).plus(held))
        head = batch_norm(channels, True).plus(linear(channels, classes))
        yield Part("head", head.plus(_activation(self, channels, height * width)))

    def activation_places(self) -> set[tuple[int, int]]:
        """Return (stage, channels) of all activations: the stage is the one that made the map, the stem the first."""
        places = {(1, self.stem)}
        for number, (_, width, _) in enumerate(self.stages(), 1):
            part = self.part_width(width)
            inner = (part, part * (self.scales or 1)) if self.block == "robust-res" else (width,)
            places |= {(number, channels) for channels in (*inner, self.outputs(width))}
        return places

    def content_name(self, shipped: Mapping[str, Json]) -> str:
        """Return `wrn-D-k` where depths and widths are uniform, else the numbers; what is not default follows."""
        depths, widths = self.depths, self.widths
        factor = widths[0] // 16
        size = f"d{'-'.join(map(str, depths))}.w{'-'.join(map(str, widths))}"
        uniform = widths == (16 * factor, 32 * factor, 64 * factor)
        if len(depths) == 3 and set(depths) == {depths[0]} and uniform:
            size = f"wrn-{6 * depths[0] + 4}-{factor}"
        usual = {"strides": (1, *[2] * (len(depths) - 1)), **BLOCKS[self.block]}
        return ".".join([size, *self.changed(usual)])

    @property
    def total_depth(self) -> int:
        """Return the blocks of all stages."""
        return sum(self.depths)

    @property
    def total_width(self) -> int:
        """Return the sum of the stages' channels."""
        return sum(self.widths)

    @property
    def stage_sizes(self) -> StageSizes:
        """Return blocks and channels of every stage."""
        return StageSizes(self.depths, self.widths)

    def factors(self) -> dict[str, float | str]:
        """Return the sizes of the stages, their sums, and the choices."""
        sizes: dict[str, float | str] = {}
        for index, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            sizes |= {f"depths.{index}": depth, f"widths.{index}": width}
        return {
            **sizes,
            "depth": self.total_depth,
            "width": self.total_width,
            "block": self.block,
            "activation": self.activation,
            "initialisation": self.initialisation,
        }

    def changeable(self, changes: Iterable[str]) -> Json:
        """Return the tree to change: where another block is chosen, without the numbers of this one."""
        tree = to_dict(self)
        return (
            {key: value for key, value in tree.items() if key not in BLOCKS["robust-res"]}
            if "block" in changes
            else tree
        )


def is_staged(architecture: Architecture) -> TypeGuard[ResidualArchitecture]:
    """Return whether every stage has a depth and a width: `stage_sizes`, for type checkers."""
    return architecture.stage_sizes is not None


def _block(
    architecture: ResidualArchitecture, c_in: int, width: int, stride: int, before: int, after: int
) -> Cost:
    """Return the cost of a block that makes `after` pixels of `before`."""
    c_out = architecture.outputs(width)
    layers = [batch_norm(c_in, True), _activation(architecture, c_in, before)]
    if architecture.block == "basic":
        layers += [convolution(c_in, width, 3, after), batch_norm(width, True)]
        layers += [_activation(architecture, width, after), convolution(width, width, 3, after)]
    elif architecture.block == "bottleneck":
        layers += [convolution(c_in, width, 1, before), batch_norm(width, True)]
        layers += [convolution(width, width, 3, after), batch_norm(width, True)]
        layers += [_activation(architecture, width, pixels) for pixels in (before, after)]
        layers += [convolution(width, c_out, 1, after)]
    else:
        part, scales, groups = (
            architecture.part_width(width),
            architecture.scales or 1,
            architecture.cardinality or 1,
        )
        squeeze = c_out * architecture.squeezed(width)  # without bias
        layers += [convolution(c_in, part * scales, 1, before), batch_norm(part * scales, True)]
        convolved = [convolution(part, part, 3, after, groups), batch_norm(part, True)]
        layers += [*convolved, _activation(architecture, part, after)] * max(scales - 1, 1)
        layers += [_activation(architecture, part * scales, before)]
        layers += [convolution(part * scales, c_out, 1, after), batch_norm(c_out, True)]
        layers += [Cost(2 * squeeze, 2 * squeeze)]
    if c_in != c_out or stride != 1:
        layers.append(convolution(c_in, c_out, 1, after))
    return total(layers)


def _activation(architecture: ResidualArchitecture, channels: int, pixels: int) -> Cost:
    """Return the cost of an activation in one place."""
    return ACTIVATIONS.get(architecture.activation).cost(channels, pixels)
