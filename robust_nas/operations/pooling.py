"""3x3 max and average pooling (DARTS; the average does not count the border). In a supernet a batch norm follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from robust_nas.lazy import torch
from robust_nas.operations.cost import Cost
from robust_nas.operations.layer import Layer
from robust_nas.operations.operation import Operation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.operations.folded_terms import Term
    from robust_nas.operations.fused_terms import State, WeightedModule


class Pooling(Operation):
    """A pooling; the batch statistics behind it are those of all edges of a state, so they are computed once."""

    pools: ClassVar[Literal["max", "avg"]]

    @classmethod
    def cost(cls, channels: int, stride: int, pixels: int, affine: bool) -> Cost:
        """Return no parameters and no MACs."""
        return Cost(0, 0)

    @classmethod
    def candidate(cls, channels: int, stride: int) -> nn.Module:
        """Return the pooling with a batch norm behind it, as in DARTS."""
        return torch.nn.Sequential(
            cls.build(channels, stride, False), torch.nn.BatchNorm2d(channels, affine=False)
        )

    @classmethod
    def knows(cls, module: nn.Module) -> bool:
        """Return whether the module is as it was built."""
        from robust_nas.layers.batch_norm import NORMS
        from robust_nas.layers.inspection import is_unchanged

        if type(module) is not torch.nn.Sequential or len(module) != 2 or not is_unchanged(module):
            return False
        pool, norm = cast(Any, module)
        if type(norm) not in NORMS:
            return False
        if cls.pools == "max":
            usual = type(pool) is torch.nn.MaxPool2d and pool.dilation == 1 and not pool.return_indices
        else:
            usual = type(pool) is torch.nn.AvgPool2d and not (pool.count_include_pad or pool.divisor_override)
        return usual and (pool.kernel_size, pool.padding, pool.ceil_mode) == (3, 1, False)

    @classmethod
    def fuse(cls, state: State, column: Sequence[WeightedModule], totals: list[Tensor | None]) -> None:
        """Pool and normalise once; every edge's running statistics are moved by that batch."""
        from robust_nas.layers.batch_norm import norm_function, weighted_norm
        from robust_nas.operations.fused_terms import added, added_scaled

        pool, norm = cast(Any, column[0].module)
        x = pool(state.x)
        norms = [(term, cast(Any, term.module)[1]) for term in column]
        if not norm.training or len({own.training for _, own in norms}) > 1:
            for (node, _, weight), own in norms:
                totals[node] = added(totals[node], weighted_norm(own, x, weight))
            return
        mean, variance = torch.zeros_like(norm.running_mean), torch.ones_like(norm.running_var)
        x = norm_function(norm)(x, mean, variance, None, None, True, 1.0, norm.eps)
        for (node, _, weight), own in norms:
            totals[node] = added_scaled(totals[node], x, weight)
            if own.track_running_stats:
                own.num_batches_tracked.add_(1)
                own.running_mean.lerp_(mean, own.momentum)
                own.running_var.lerp_(variance, own.momentum)

    @classmethod
    def fold(cls, module: nn.Module, weight: Tensor) -> tuple[list[Term], Tensor | None]:
        """Return the pooling, scaled by its batch norm."""
        from robust_nas.layers.norm_folding import scale_and_shift
        from robust_nas.operations.folded_terms import Scaled

        scale, shift = scale_and_shift(cast(Any, module)[1])
        return [Scaled(cls.pools, weight * scale)], weight * shift


class MaxPool3x3(Pooling):
    """3x3 max pooling."""

    name: Literal["max_pool_3x3"] = "max_pool_3x3"
    layer = Layer("robust_nas.layers.pooling:max_pool")
    pools = "max"


class AvgPool3x3(Pooling):
    """3x3 average pooling."""

    name: Literal["avg_pool_3x3"] = "avg_pool_3x3"
    layer = Layer("robust_nas.layers.pooling:avg_pool")
    pools = "avg"
