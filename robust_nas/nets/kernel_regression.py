"""Kernel regression as a torch module: support images and solved coefficients, float64 inside.

    f(x) = sum_i k(n(x), n(s_i)) a_i        n: the normalisation, a = (K + ridge)^-1 y of `kernels/regression.py`

Gradients flow to the images, so attacks meet it as any network. An answer is the largest of K regression values.

B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.kernels import KERNELS, Kernel
from robust_nas.layers.normalise import Normalise


class KernelRegressionNetwork(nn.Module):
    """Support images `[n, C, H, W]` in 0..1 and their coefficients `[n, K]`, drawn at random until they are set."""

    def __init__(
        self,
        support: int,
        shape: tuple[int, int, int],
        kernel: dict[str, Any] | Kernel,
        classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.kernel = kernel if isinstance(kernel, Kernel) else KERNELS.make(**kernel)
        self.normalise = Normalise(mean, std)
        self.support = nn.Parameter(torch.rand(support, *shape, dtype=torch.float64))
        self.coefficients = nn.Parameter(torch.randn(support, classes, dtype=torch.float64) / support)

    def extra_repr(self) -> str:
        """Return the kernel, by which the digest of a model knows it."""
        return repr(self.kernel)

    def set(self, support: Tensor, coefficients: Tensor) -> KernelRegressionNetwork:
        """Put in support images and coefficients of these shapes, as copies; return the module."""
        with torch.no_grad():
            self.support.copy_(support)
            self.coefficients.copy_(coefficients)
        return self

    def staged(self, x: Tensor) -> list[Tensor]:
        """Return the logits alone, as a list of the outputs of all stages."""
        return [self(x)]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, K]` of images `[B, C, H, W]` in 0..1, in the dtype of the images."""
        gram = self.kernel.gram(self.normalise(x.double()), self.normalise(self.support))
        return (gram @ self.coefficients).to(x.dtype)
