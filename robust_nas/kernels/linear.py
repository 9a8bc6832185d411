"""The linear kernel k(x, z) = <x, z> / d of d pixel values: kernel regression with it is ridge regression.

The predictor of kernel regression is then f(x) = <w, x> with w = X^T alpha / d, the ridge solution (Hastie, Tibshirani
and Friedman, section 3.4 in its dual form), for which robustness in a ball has a closed form.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from robust_nas.kernels.kernel import Kernel, Shape

if TYPE_CHECKING:
    from torch import Tensor


class LinearKernel(Kernel):
    """The inner product of the pixels, divided by their number."""

    name: Literal["linear"] = "linear"

    def gram(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the kernel `[A, B]`."""
        return x.double().flatten(1) @ z.double().flatten(1).T / x[0].numel()

    def macs(self, shape: Shape, support: int) -> int:
        """Return one inner product for each support image."""
        return math.prod(shape) * support
