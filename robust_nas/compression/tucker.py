"""Low-rank forms of a layer: Tucker-2 of a kernel, the truncated SVD of a 1x1 convolution or a linear layer.

    W [M, C, K1, K2] ~ core x_out A x_in B,   core [r_out, r_in, K1, K2], A [M, r_out], B [C, r_in], both orthonormal

HOSVD takes the leading left singular vectors of both unfoldings; HOOI renews them in turn, each with the other fixed,
and never gets worse (De Lathauwer, De Moor and Vandewalle, 2000; Kim et al., 2016, for convolutions). With the spectra
s of the unfoldings, tail(r) = sum_{i > r} s_i^2:

    max(tail_out, tail_in) <= ||W - W'||^2 of HOOI <= that of HOSVD <= tail_out + tail_in
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robust_nas.errors import CompressionError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

Ranks = tuple[int, ...]  # (r_in, r_out) of a kernel, (r,) of a 1x1 convolution or a linear layer


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """Return the leading left singular vectors `[rows, rank]`."""
    # Of the smaller Gram matrix: the other side of an unfolding has thousands of columns.
    vectors: Tensor = torch.linalg.eigh(matrix @ matrix.T).eigenvectors
    return vectors.flip(1)[:, :rank]


def tucker2(weight: Tensor, rank_in: int, rank_out: int, sweeps: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Return B^T `[r_in, C]`, the core `[r_out, r_in, K1, K2]` and A `[M, r_out]` in float64; no sweep is HOSVD."""
    w = _finite(weight)
    a = _leading(w.flatten(1), rank_out)
    b = _leading(w.transpose(0, 1).flatten(1), rank_in)
    if rank_out < len(w) and rank_in < w.shape[1]:  # else a sweep changes nothing
        for _ in range(sweeps):
            a = _leading(torch.einsum("mchw,ci->mihw", w, b).flatten(1), rank_out)
            b = _leading(torch.einsum("mchw,mo->cohw", w, a).flatten(1), rank_in)
    return b.T, torch.einsum("mchw,mo,ci->oihw", w, a, b), a


def low_rank(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return V^T `[r, C]` and U s `[M, r]` in float64 of a matrix `[M, C]` (or a 1x1 kernel)."""
    u, s, vh = torch.linalg.svd(_finite(weight).flatten(1), full_matrices=False)
    return vh[:rank], u[:, :rank] * s[:rank]


def project(weight: Tensor, ranks: Ranks, sweeps: int = 5) -> Tensor:
    """Return the nearest known weight of these ranks (for one rank, the nearest), in the shape and type of `weight`."""
    if len(ranks) == 1:
        first, second = low_rank(weight, ranks[0])
        return (second @ first).view(weight.shape).to(weight)
    first, core, last = tucker2(weight, ranks[0], ranks[1], sweeps)
    return torch.einsum("ic,oihw,mo->mchw", first, core, last).to(weight)


def spectra(weight: Tensor, ranks: int) -> list[Tensor]:
    """Return squared singular values, falling: of W for one rank; of the input's and the output's unfolding for two."""
    w = _finite(weight)
    if ranks == 1:
        return [torch.linalg.svdvals(w.flatten(1)).square()]
    unfoldings = (w.transpose(0, 1).flatten(1), w.flatten(1))
    return [torch.linalg.eigvalsh(m @ m.T).flip(0).clamp_min(0) for m in unfoldings]


def _finite(weight: Tensor) -> Tensor:
    """Return the weight in float64. Raises `CompressionError` for NaN or infinite values."""
    if not weight.isfinite().all():
        raise CompressionError(f"a weight of shape {tuple(weight.shape)} holds NaN or infinite values")
    return weight.detach().double()


def factorised_layer(layer: nn.Conv2d | nn.Linear, ranks: Ranks, sweeps: int = 5) -> nn.Module:
    """Return the layer in factors; exact where the weight has these ranks."""
    from robust_nas.layers.factorised import LowRankConv2d, LowRankLinear, Tucker2Conv2d

    made: Any
    parts: tuple[Tensor, ...]
    targets: tuple[Any, ...]
    with torch.no_grad():
        if len(ranks) == 2:
            made = Tucker2Conv2d(layer, *ranks)  # type: ignore[arg-type] # two ranks: a convolution
            parts = tucker2(layer.weight, ranks[0], ranks[1], sweeps)
            targets = (made.first, made.core, made.last)
        else:
            made = (
                LowRankLinear(layer, *ranks)
                if isinstance(layer, torch.nn.Linear)
                else LowRankConv2d(layer, *ranks)
            )
            parts = low_rank(layer.weight, *ranks)
            targets = (made.first, made.second)
        for target, part in zip(targets, parts, strict=True):
            target.weight.copy_(part.view(target.weight.shape))
        if layer.bias is not None:
            targets[-1].bias.copy_(layer.bias)
    return made.train(layer.training)  # type: ignore[no-any-return]
