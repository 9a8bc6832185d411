"""Separable and dilated separable convolutions (DARTS): ReLU, depthwise, 1x1, batch norm; `sep_conv` twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from robust_nas.lazy import F
from robust_nas.operations.cost import Cost, convolution, pointwise
from robust_nas.operations.layer import Layer
from robust_nas.operations.operation import Operation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.operations.folded_terms import Term
    from robust_nas.operations.fused_terms import State, WeightedModule

LAYER = "robust_nas.layers.separable_conv:SeparableConv"


class Separable(Operation):
    """A separable convolution of one kernel size, once or twice."""

    kernel: ClassVar[int]
    repeats: ClassVar[int]

    @classmethod
    def cost(cls, channels: int, stride: int, pixels: int, affine: bool) -> Cost:
        """Return the cost of `repeats` blocks."""
        depthwise = convolution(channels, channels, cls.kernel, pixels, groups=channels)
        return depthwise.plus(pointwise(channels, channels, pixels, affine)).times(cls.repeats)

    @classmethod
    def activations(cls, stride: int) -> tuple[int, int]:
        """Return one before each block."""
        return 1, cls.repeats - 1

    @classmethod
    def knows(cls, module: nn.Module) -> bool:
        """Return whether the module is as it was built."""
        from robust_nas.layers.inspection import is_unchanged
        from robust_nas.layers.separable_conv import SeparableConv

        return type(module) is SeparableConv and len(module) == 4 * cls.repeats <= 8 and is_unchanged(module)

    @classmethod
    def fuse(cls, state: State, column: Sequence[WeightedModule], totals: list[Tensor | None]) -> None:
        """Add the blocks on the state's ReLU, the last batch norm weighted."""
        from robust_nas.layers.batch_norm import weighted_norm
        from robust_nas.layers.depthwise import depthwise
        from robust_nas.operations.fused_terms import added

        for node, module, weight in column:
            layers: list[Any] = list(cast(Any, module))
            r = x = state.relu
            for start in range(0, len(layers), 4):
                x = layers[start + 2](depthwise(r, layers[start + 1]))
                if start + 4 < len(layers):
                    r = F.relu_(layers[start + 3](x))
            totals[node] = added(totals[node], weighted_norm(layers[-1], x, weight))

    @classmethod
    def fold(cls, module: nn.Module, weight: Tensor) -> tuple[list[Term], Tensor | None]:
        """Return the chain of its depthwise convolutions and matrices."""
        from robust_nas.layers.norm_folding import scale_and_shift
        from robust_nas.operations.folded_terms import Chain, Depthwise

        layers: list[Any] = list(cast(Any, module))
        scale, shift = scale_and_shift(layers[-1])
        out = layers[-2].weight[:, :, 0, 0].t() * (weight * scale)
        inner = None
        if len(layers) == 8:
            inner_scale, inner_shift = scale_and_shift(layers[3])
            inner = (layers[2].weight[:, :, 0, 0].t() * inner_scale, inner_shift, Depthwise.of(layers[5]))
        return [Chain(Depthwise.of(layers[1]), inner, out)], weight * shift


class SepConv3x3(Separable):
    """Two blocks of kernel 3."""

    name: Literal["sep_conv_3x3"] = "sep_conv_3x3"
    layer = Layer(LAYER, kernel=3, dilation=1, repeats=2)
    kernel, repeats = 3, 2


class SepConv5x5(Separable):
    """Two blocks of kernel 5."""

    name: Literal["sep_conv_5x5"] = "sep_conv_5x5"
    layer = Layer(LAYER, kernel=5, dilation=1, repeats=2)
    kernel, repeats = 5, 2


class DilConv3x3(Separable):
    """One block of kernel 3 and dilation 2."""

    name: Literal["dil_conv_3x3"] = "dil_conv_3x3"
    layer = Layer(LAYER, kernel=3, dilation=2, repeats=1)
    kernel, repeats = 3, 1


class DilConv5x5(Separable):
    """One block of kernel 5 and dilation 2."""

    name: Literal["dil_conv_5x5"] = "dil_conv_5x5"
    layer = Layer(LAYER, kernel=5, dilation=2, repeats=1)
    kernel, repeats = 5, 1
