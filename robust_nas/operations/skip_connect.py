"""The skip connection (DARTS): the identity, or a factorised reduction where the resolution halves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from robust_nas.lazy import torch
from robust_nas.operations.cost import Cost, factorized_reduce
from robust_nas.operations.layer import Layer
from robust_nas.operations.operation import Operation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.operations.folded_terms import Term
    from robust_nas.operations.fused_terms import State, WeightedModule


class SkipConnect(Operation):
    """The identity, or a factorised reduction."""

    name: Literal["skip_connect"] = "skip_connect"
    layer = Layer("robust_nas.layers.factorised_reduction:skip_connection")
    is_skip: ClassVar[bool] = True

    @classmethod
    def cost(cls, channels: int, stride: int, pixels: int, affine: bool) -> Cost:
        """Return the cost of the reduction where the stride is 2."""
        return Cost(0, 0) if stride == 1 else factorized_reduce(channels, channels, pixels, affine)

    @classmethod
    def activations(cls, stride: int) -> tuple[int, int]:
        """Return that of the reduction."""
        return (0, 0) if stride == 1 else (1, 0)

    @classmethod
    def knows(cls, module: nn.Module) -> bool:
        """Return whether the module is as it was built."""
        from robust_nas.layers.factorised_reduction import FactorizedReduce
        from robust_nas.layers.inspection import is_unchanged

        return type(module) in (torch.nn.Identity, FactorizedReduce) and is_unchanged(module)

    @classmethod
    def fuse(cls, state: State, column: Sequence[WeightedModule], totals: list[Tensor | None]) -> None:
        """Add the state, or its halves through a batch norm that is weighted."""
        from robust_nas.layers.batch_norm import weighted_norm
        from robust_nas.operations.fused_terms import added, added_scaled

        for node, module, weight in column:
            if isinstance(module, torch.nn.Identity):
                totals[node] = added_scaled(totals[node], state.x, weight)
            else:
                reduction = cast(Any, module)
                halves = reduction.halves(state.relu)
                totals[node] = added(totals[node], weighted_norm(reduction.bn, halves, weight))

    @classmethod
    def fold(cls, module: nn.Module, weight: Tensor) -> tuple[list[Term], Tensor | None]:
        """Return the state scaled, or two matrices for even and odd pixels."""
        from robust_nas.layers.norm_folding import scale_and_shift
        from robust_nas.operations.folded_terms import Reduction, Scaled

        if isinstance(module, torch.nn.Identity):
            return [Scaled("x", weight)], None
        reduction = cast(Any, module)
        scale, shift = scale_and_shift(reduction.bn)
        kernels = torch.cat([reduction.conv1.weight, reduction.conv2.weight])[:, :, 0, 0].t()
        half = reduction.conv1.out_channels
        whole = kernels * (weight * scale)
        return [Reduction(whole[:, :half].contiguous(), whole[:, half:].contiguous())], weight * shift
