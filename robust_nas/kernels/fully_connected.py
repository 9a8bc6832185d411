"""The recursion of fully connected ReLU networks of infinite width, of which NNGP and NTK are the two results.

    S = ws <x, z> / d + bs,   T = S                                first layer, d pixel values
    S' = E relu relu,   T' = T E relu' relu'                       `relu_layer.py`
    S = ws S' + bs,     T = S + ws T'                              the next layer; `depth` times

S is the covariance of outputs at initialisation (NNGP; Lee et al., 2018), T the neural tangent kernel (Jacot et al.,
2018), both in the NTK parametrisation. ws, bs: variances of weights and biases.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from robust_nas.config import Count, NonNegative, Positive
from robust_nas.kernels.kernel import Kernel, Shape
from robust_nas.kernels.relu_layer import relu_layer

if TYPE_CHECKING:
    from torch import Tensor


class FullyConnected(Kernel):
    """Base of both; the defaults are those of the public code of KIP (google-research/kip)."""

    depth: Count = 1  # hidden layers
    weight_variance: Positive = 2.0  # variance of a weight, times the inputs of a layer
    bias_variance: NonNegative = 0.01  # variance of a bias

    def both(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return S and T, each `[A, B]`."""
        ws, bs = self.weight_variance, self.bias_variance
        x, z = x.double().flatten(1), z.double().flatten(1)
        pixels = x.shape[1]
        covariance = ws * (x @ z.T) / pixels + bs
        x_variance = (ws * x.square().sum(1) / pixels + bs).unsqueeze(1)
        z_variance = (ws * z.square().sum(1) / pixels + bs).unsqueeze(0)
        tangent = covariance
        for _ in range(self.depth):
            covariance, slope = relu_layer(covariance, x_variance, z_variance)
            covariance = ws * covariance + bs
            tangent = covariance + ws * tangent * slope
            # An image meets itself at t = 0, where half of its variance is left.
            x_variance, z_variance = (ws * each / 2 + bs for each in (x_variance, z_variance))
        return covariance, tangent

    def macs(self, shape: Shape, support: int) -> int:
        """Return one inner product for each support image."""
        return math.prod(shape) * support
