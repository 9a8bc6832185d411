"""Generalised depthwise-separable approximation of one convolution (Dbouk and Shanbhag, NeurIPS 2021).

A kernel W [M, C, K1, K2] is read as W_1, ..., W_C, each M x K1 K2. Channel c gets g_c kernels of its own and a mixing
matrix: W_c ~ Q_c = P_c D_c of rank g_c. With the singular values s_c of W_c, for given g the best Q_c cuts the
decomposition of W_c at g_c, and

    e^2(W, Q, alpha) = sum_c alpha_c ||W_c - Q_c||^2 = sum_c sum_{i > g_c} v_{c,i},    v_{c,i} = alpha_c s_{c,i}^2.

A kernel costs K1 K2 + M multiply-adds an output pixel, whichever channel gets it; so the greedy choices are optimal:

    MEGO: keep the G largest v (least error under a bound of the complexity)
    LEGO: drop the smallest v while their sum is at most beta (least complexity under a bound of the squared error)

g_c = rank(W_c) for all c is exact. C, M, K1, K2: inputs, outputs, sides of the kernel; r = min(M, K1 K2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robust_nas.errors import CompressionError
from robust_nas.layers.factorised import GDWSConv2d

EPS = torch.finfo(torch.float64).eps


def channel_matrices(weight: Tensor) -> Tensor:
    """Return the W_c `[C, M, K1 K2]` in float64. Raises `CompressionError` for NaN."""
    if not weight.isfinite().all():
        raise CompressionError(f"a kernel of shape {tuple(weight.shape)} holds NaN or infinite values")
    matrices: Tensor = weight.detach().double().transpose(0, 1).flatten(2)
    return matrices


def svd_channels(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U `[C, M, r]`, s `[C, r]` and V^T `[C, r, K1 K2]` of every W_c, in float64.

    Raises `CompressionError` for NaN.
    """
    u, s, vh = torch.linalg.svd(channel_matrices(weight), full_matrices=False)
    return u, s, vh


def energies(weight: Tensor, alpha: Tensor | None = None) -> Tensor:
    """Return the v `[C, r]`, float64, falling along r: the loss without each kernel. `alpha` `[C]`; None: ones.

    The s^2 are the eigenvalues of the smaller Gram matrix of W_c, faster than by the decomposition; what is within the
    rounding of s_1^2 is 0. Raises `CompressionError` for alphas of another shape, below 0, or not finite.
    """
    matrices = channel_matrices(weight)
    short = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.transpose(1, 2)
    squares: Tensor = torch.linalg.eigvalsh(short @ short.transpose(1, 2)).flip(1)
    squares = squares.where(squares > squares.shape[1] * EPS * squares[:, :1], 0.0)
    if alpha is None:
        return squares
    alpha = alpha.to(squares)
    if alpha.shape != squares.shape[:1] or not (alpha.isfinite().all() and (alpha >= 0).all()):
        raise CompressionError(
            f"alpha: got shape {tuple(alpha.shape)} from {alpha.min().item():.4g}; "
            f"{len(squares)} finite numbers from 0, one an input channel, are needed"
        )
    return alpha[:, None] * squares


def kept_order(v: Tensor) -> Tensor:
    """Return the kernels of v `[C, r]` in the order in which they are kept, as indices into `v.T.flatten()`.

    Ties keep the lower i first, so that what is kept is a prefix in every channel.
    """
    return torch.sort(v.T.flatten(), descending=True, stable=True).indices


def counts(v: Tensor, kept: Tensor) -> Tensor:
    """Return the g `[C]` int64 of the kept kernels, indices as `kept_order` gives them."""
    return torch.bincount(kept % len(v), minlength=len(v))


def with_minimum(v: Tensor, min_kernels: int) -> Tensor:
    """Return the v with infinity for the kernels that are always kept."""
    forced = v.clone()
    forced[:, : min(min_kernels, v.shape[1])] = torch.inf
    return forced


def fewest(v: Tensor, beta: float, min_kernels: int) -> Tensor:
    """Return the g `[C]` int64 of the fewest kernels whose loss is at most `beta`; all 0 where no kernel is needed."""
    forced = with_minimum(v, min_kernels)
    order = kept_order(forced)
    lost = forced.T.flatten()[order].flip(0).cumsum(0)  # of the last, the last two, ...
    return counts(v, order[: len(order) - int((lost <= beta).sum())])


def mego(weight: Tensor, alpha: Tensor | None = None, *, max_kernels: int, min_kernels: int = 1) -> Tensor:
    """Return the g `[C]` int64 with the least weighted error among those with sum_c g_c <= `max_kernels`.

    Raises `CompressionError` where that is fewer than `min_kernels` a channel, or no kernel at all.
    """
    v = energies(weight, alpha)
    least = min(min_kernels, v.shape[1])
    if max_kernels < max(least * len(v), 1):
        raise CompressionError(
            f"max_kernels: got {max_kernels}; {len(v)} channels keep at least {least} kernels each, "
            f"so that {max(least * len(v), 1)} are the fewest"
        )
    return counts(v, kept_order(with_minimum(v, min_kernels))[:max_kernels])


def lego(weight: Tensor, alpha: Tensor | None = None, *, beta: float, min_kernels: int = 1) -> Tensor:
    """Return the g `[C]` int64 with the fewest kernels among those with a weighted squared error of at most `beta`.

    Every channel keeps `min_kernels`. Raises `CompressionError` for a negative beta, or one for which no kernel
    remains.
    """
    if not beta >= 0:
        raise CompressionError(f"beta: got {beta}; a bound of the squared error from 0 is needed")
    v = energies(weight, alpha)
    g = fewest(v, beta, min_kernels)
    if not g.any():
        raise CompressionError(
            f"beta: got {beta:.4g}, more than the whole weighted energy {float(v.sum()):.4g} of a layer, of which "
            "no kernel would be kept; a smaller beta or min_kernels of at least 1 is needed"
        )
    return g


def dropped_energy(v: Tensor, g: Tensor) -> float:
    """Return e^2 of the best approximation with g `[C]`: the sum of the v `[C, r]` that it leaves out."""
    dropped = torch.arange(v.shape[1]) >= g.cpu()[:, None]
    return float((v * dropped.to(v.device)).sum())


def factorize(weight: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return D `[G, K1, K2]` and P `[M, G]` in float64, both sorted by input channel: rows v^T, columns s u."""
    u, s, vh = svd_channels(weight)
    if g.shape != s.shape[:1] or int(g.max()) > s.shape[1] or int(g.min()) < 0:
        raise CompressionError(
            f"g: got shape {tuple(g.shape)} from {int(g.min())} to {int(g.max())}; "
            f"{len(s)} numbers from 0 to {s.shape[1]} are needed"
        )
    kept = torch.arange(s.shape[1], device=s.device) < g.to(s.device)[:, None]  # [C, r]
    depthwise = vh[kept].view(-1, *weight.shape[2:])
    pointwise = (u * s[:, None]).transpose(1, 2)[kept].T
    return depthwise, pointwise


def gdws_layer(convolution: nn.Conv2d, g: Tensor) -> GDWSConv2d:
    """Return the convolution with g `[C]` kernels a channel; exact where g is the ranks.

    Raises `CompressionError` for a grouped convolution, or a g that does not fit.
    """
    try:
        layer = GDWSConv2d(convolution, g.tolist())
    except ValueError as error:
        raise CompressionError(str(error)) from None
    depthwise, pointwise = factorize(convolution.weight, g)
    layer.fill(depthwise, pointwise, convolution.bias)
    return layer.train(convolution.training)
