"""Batch norm with the statistics of a batch that is split over processes.

    mean = sum_r n_r mean_r / n,   M = sum_r M_r + n_r (mean_r - mean)^2,   var = M / n      (Chan et al., 1979)
    dx   = w / s * (dy - <dy> - x^ <dy x^>),   s = sqrt(var + eps),   x^ = (x - mean) / s

<.> is the mean over the whole batch: one message forward (n, mean and M / n of every process), one backward (both
sums). The gradients of w and b are those of the rows at hand, to be summed with all others. It runs on CPUs, which
`nn.SyncBatchNorm` does not. Every process must run the same batch norms in the same order, forward and backward.

Shapes: x [B, C, ...]; statistics, w and b [C].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Normalise as `F.batch_norm`, with statistics of all processes of `group` (None: the default) where `training`.

    The running statistics move by those of the whole batch, in every process alike.
    """
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    normalised, mean, var, count = _Normalised.apply(x, weight, bias, eps, group)  # type: ignore[no-untyped-call]
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            unbiased = var * (count / (count - 1))
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    return normalised  # type: ignore[no-any-return]


def refuse_second_derivative(what: str) -> None:
    """Raise `RuntimeError` in a backward pass that is recorded for another one.

    Torch's `once_differentiable` does not do for it: `autograd.grad` leaves out the term without a word.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(f"{what} has no second derivative (create_graph=True)")


class _Normalised(torch.autograd.Function):
    """The normalised batch, and its statistics: mean and variance [C] and the number of entries of a channel."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        group: dist.ProcessGroup | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x if x.dtype == torch.float64 else x.float()  # statistics are never taken in bf16
        channels = x.shape[1]
        dims = [0, *range(2, x.dim())]
        own_var, own_mean = torch.var_mean(wide, dims, correction=0)
        own_count = torch.full_like(own_mean[:1], x.numel() // channels)
        # Everyone's row in a table of zeros: by gloo a sum is faster than a gather.
        parts = own_mean.new_zeros(dist.get_world_size(group), 2 * channels + 1)
        parts[dist.get_rank(group)] = torch.cat([own_mean, own_var, own_count])
        dist.all_reduce(parts, group=group)
        means, variances, counts = torch.split(
            parts, [channels, channels, 1], dim=1
        )  # [R, C], [R, C], [R, 1]
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        var = (counts * (variances + (means - mean).square())).sum(0) / count
        ctx.save_for_backward(wide, weight, mean, (var + eps).rsqrt(), count)
        ctx.group = group
        ctx.mark_non_differentiable(mean, var, count)
        return F.batch_norm(wide, mean, var, weight, bias, False, 0.0, eps).to(x.dtype), mean, var, count

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("a batch norm that several processes share")
        x, weight, mean, inverse, count = ctx.saved_tensors
        shape = [1, -1, *[1] * (x.dim() - 2)]
        dims = [0, *range(2, x.dim())]
        wide = dy.to(x.dtype)
        scaled = (x - mean.view(shape)) * inverse.view(shape)
        own = torch.stack([wide.sum(dims), (wide * scaled).sum(dims)])  # [2, C]
        both = own.clone()
        dist.all_reduce(both, group=ctx.group)
        first, second = (part.view(shape) for part in both / count)
        factor = inverse if weight is None else inverse * weight
        dx = (wide - first - scaled * second) * factor.view(shape)
        dweight = own[1].to(weight.dtype) if weight is not None and ctx.needs_input_grad[1] else None
        dbias = own[0].to(weight.dtype) if weight is not None and ctx.needs_input_grad[2] else None
        return dx.to(dy.dtype), dweight, dbias, None, None


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose batch statistics are those of all processes; in eval mode it is the same."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[B, C, H, W]`."""
        if not self.training and self.running_mean is not None:
            return super().forward(x)
        moves = self.training and self.track_running_stats
        momentum = self.momentum
        if moves and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1.0 / float(self.num_batches_tracked) if momentum is None else momentum
        return batch_norm(
            x,
            self.running_mean if moves else None,
            self.running_var if moves else None,
            self.weight,
            self.bias,
            True,
            momentum or 0.0,
            self.eps,
        )


NORMS = (nn.BatchNorm2d, SynchronisedBatchNorm2d)


def weighted_norm(norm: nn.BatchNorm2d, x: Tensor, weight: Tensor) -> Tensor:
    """Return `weight` (a scalar) times the batch norm of `[B, C, H, W]`; the norm has no weights of its own."""
    if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    kept = not norm.training or norm.track_running_stats
    return norm_function(norm)(
        x,
        norm.running_mean if kept else None,
        norm.running_var if kept else None,
        weight.repeat(x.shape[1]),  # not `expand`: the backward pass on a CPU misreads a stride of 0
        None,
        norm.training,
        cast(float, norm.momentum),
        norm.eps,
    )


def norm_function(norm: nn.BatchNorm2d) -> Callable[..., Tensor]:
    """Return the function that a batch norm applies: of the batch at hand, or of all ranks together."""
    return batch_norm if isinstance(norm, SynchronisedBatchNorm2d) else F.batch_norm


def synchronise(network: nn.Module) -> None:
    """Replace every `nn.BatchNorm2d` inside a network by a synchronised one; names, tensors and hooks stay."""
    made: dict[nn.Module, nn.Module] = {}  # a norm in several places stays one
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and type(child) is nn.BatchNorm2d:
                if child not in made:
                    made[child] = _synchronised(child)
                setattr(parent, name, made[child])


def _synchronised(norm: nn.BatchNorm2d) -> SynchronisedBatchNorm2d:
    own = SynchronisedBatchNorm2d(norm.num_features, device="meta")
    vars(own).update(vars(norm))  # the same tensors, mode and hooks
    return own


def local_statistics(network: nn.Module) -> list[Tensor]:
    """Return the running means and variances that each process moves by its own rows: the unsynchronised ones."""
    norms = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, SynchronisedBatchNorm2d)
    ]
    found = [statistic for norm in norms for statistic in (norm.running_mean, norm.running_var)]
    return [statistic for statistic in found if statistic is not None]
