"""Plain convolutions (NAS-Bench-201, Dong and Yang, 2020): ReLU, convolution, batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from robust_nas.operations.cost import Cost, batch_norm, convolution
from robust_nas.operations.layer import Layer
from robust_nas.operations.operation import Operation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.operations.folded_terms import Term
    from robust_nas.operations.fused_terms import State, WeightedModule

LAYER = "robust_nas.layers.relu_conv_bn:nor_conv"


class NorConv(Operation):
    """A convolution of one kernel size."""

    kernel: ClassVar[int]

    @classmethod
    def cost(cls, channels: int, stride: int, pixels: int, affine: bool) -> Cost:
        """Return the cost of the convolution and its batch norm."""
        return convolution(channels, channels, cls.kernel, pixels).plus(batch_norm(channels, affine))

    @classmethod
    def activations(cls, stride: int) -> tuple[int, int]:
        """Return the one before the convolution; a strided 1x1 one takes its stride before it."""
        return (0, 1) if cls.kernel == 1 else (1, 0)

    @classmethod
    def knows(cls, module: nn.Module) -> bool:
        """Return whether the module is as it was built."""
        from robust_nas.layers.inspection import is_unchanged
        from robust_nas.layers.relu_conv_bn import ReLUConvBN

        return (
            type(module) is ReLUConvBN
            and is_unchanged(module)
            and module[1].kernel_size == (cls.kernel, cls.kernel)
        )

    @classmethod
    def fuse(cls, state: State, column: Sequence[WeightedModule], totals: list[Tensor | None]) -> None:
        """Add the convolution of the state's ReLU, the batch norm weighted."""
        from robust_nas.layers.batch_norm import weighted_norm
        from robust_nas.operations.fused_terms import added

        for node, module, weight in column:
            own = cast(Any, module)
            before = own.stride_before
            x = own[1](state.relu if before == 1 else state.relu[:, :, ::before, ::before])
            totals[node] = added(totals[node], weighted_norm(own[2], x, weight))

    @classmethod
    def fold(cls, module: nn.Module, weight: Tensor) -> tuple[list[Term], Tensor | None]:
        """Return the convolution with batch norm and edge weight in its kernels."""
        from robust_nas.layers.norm_folding import scale_and_shift
        from robust_nas.operations.folded_terms import Dense

        own = cast(Any, module)
        scale, shift = scale_and_shift(own[2])
        stride = own.stride_before * own[1].stride[0]
        return [Dense(own[1].weight * (weight * scale)[:, None, None, None], stride)], weight * shift


class NorConv1x1(NorConv):
    """A 1x1 convolution."""

    name: Literal["nor_conv_1x1"] = "nor_conv_1x1"
    layer = Layer(LAYER, kernel=1)
    kernel = 1


class NorConv3x3(NorConv):
    """A 3x3 convolution."""

    name: Literal["nor_conv_3x3"] = "nor_conv_3x3"
    layer = Layer(LAYER, kernel=3)
    kernel = 3
