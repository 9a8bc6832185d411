"""Kernel ridge regression on class labels: f(x) = k(x, X) (K + reg tr(K) / n I)^-1 y.

    y = one-hot - 1 / classes, so that the zero function answers with no class

Source: the public code of KIP (google-research/kip): float64, the ridge relative to the mean of K's diagonal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_nas.errors import KernelError
from robust_nas.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor


def centred_targets(labels: Tensor, classes: int) -> Tensor:
    """Return float64 targets `[n, classes]` of labels `[n]`."""
    return F.one_hot(labels, classes).double() - 1 / classes


def solve(gram: Tensor, targets: Tensor, reg: float) -> Tensor:
    """Return the coefficients `[n, classes]` of a kernel matrix `[n, n]` and targets `[n, classes]`, both float64.

    Raises `KernelError` where the matrix with its ridge is not positive definite to rounding.
    """
    n = len(gram)
    scale = gram.diagonal().mean()
    factor, info = torch.linalg.cholesky_ex(
        gram + reg * scale * torch.eye(n, dtype=gram.dtype, device=gram.device)
    )
    pivots = factor.detach().diagonal().square()
    least = n * torch.finfo(gram.dtype).eps * scale.detach()
    if int(info) or not bool((pivots > least).all()):
        raise KernelError(
            f"the kernel matrix of {n} support images is not positive definite with reg {reg:g}: images that are "
            "equal, or more of them than the kernel can tell apart; a larger method.reg (1e-6 is usual), fewer images"
        )
    return torch.cholesky_solve(targets, factor)
