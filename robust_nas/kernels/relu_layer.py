"""What a ReLU layer of infinite width does to covariances, which every kernel of ReLU networks repeats.

    (u, v) ~ N(0, [[S_xx, S_xz], [S_xz, S_zz]]),  c = S_xz / sqrt(S_xx S_zz),  t = acos c

    E relu(u) relu(v)       = sqrt(S_xx S_zz) (sin t + (pi - t) cos t) / (2 pi)
    E relu'(u) relu'(v)     = (pi - t) / (2 pi)

Source: Cho and Saul, 2009 (arc-cosine kernels of degree 1 and 0); Jacot et al., 2018. The derivative of acos is
infinite at 1, where an image meets itself: cosines are clamped to 1 - 1e-14, which costs 5e-8 of the second value
there, less than the ridge of kernel regression adds (1e-6; a clamp of 1e-7 would take 1.4e-4 from the diagonal).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

CLAMP = 1e-14  # distance of a cosine from -1 and 1
SMALL = 1e-24  # of a product of variances; images of zeros without a bias have none


def relu_layer(covariance: Tensor, x_variance: Tensor, z_variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return E relu(u) relu(v) and E relu'(u) relu'(v) in the shape of the covariance, to which variances broadcast."""
    norm = (x_variance * z_variance).clamp_min(SMALL).sqrt()
    cosine = (covariance / norm).clamp(CLAMP - 1, 1 - CLAMP)
    angle = torch.pi - torch.acos(cosine)  # pi - t
    values = norm * ((1 - cosine * cosine).sqrt() + angle * cosine) / (2 * math.pi)
    return values, angle / (2 * math.pi)
