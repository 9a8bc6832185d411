"""Jacobian covariance (Mellor et al., 2020; as a proxy: Abdelfattah et al., 2021).

    J [B, D]:  j_b = d/dx_b sum_k f_k(x_b)
    v: the eigenvalues of the correlation matrix [B, B] of the rows of J
    score = -sum_b (log(v_b + k) + 1 / (v_b + k)),    k = 1e-5

Images whose gradients differ have eigenvalues near 1, which score best. An image whose gradient is constant has no
correlation with any: its row is 0, and so is an eigenvalue. A network whose logits do not depend on the images has
v = 0, the lowest score. v is clipped at 0, which rounding falls below.

Batch norm: with `statistics: fixed` its mean and variance are those of the batch and count as constants, so that j_b is
the gradient of image b alone. With `batch` (as published) they are differentiated too, and j_b is the gradient of the
batch's sum. This sum is constant where nothing but sums and means follows the last batch norms, and J is then rounding
noise: so it is for some networks of DARTS's and DSARA's spaces, those in which no pooling follows them. Behind
NAS-Bench-201's last ReLU it is not; there a difference of the two is not shown (`docs/how-to/ranking.md`).
B batch, D numbers of an image, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.errors import ConfigError
from robust_nas.lazy import torch
from robust_nas.search.proxies.gradients import batch_statistics, fixed_statistics, gradient
from robust_nas.search.proxies.proxy import Proxy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

K = 1e-5


class JacobCov(Proxy):
    """How differently a network at its initialisation responds to different images."""

    passes: ClassVar[int] = 3

    name: Literal["jacob-cov"] = "jacob-cov"
    statistics: Literal["fixed", "batch"] = "fixed"  # batch norms: as initialised, or of the batch

    def score(self, network: nn.Module, images: Tensor, labels: Tensor | None, generator: Generator) -> float:
        """Return the score of the input gradients' correlation."""
        if len(images) < 2:
            raise ConfigError(
                f"search.evaluator.images: got {len(images)}; jacob-cov compares 2 images or more"
            )

        x = images.detach().clone().requires_grad_()
        if self.statistics == "fixed":
            with fixed_statistics(network, images) as fixed:
                jacobian = gradient(fixed(x).sum(), x)
        else:
            with batch_statistics(network):
                jacobian = gradient(network(x).sum(), x)
        correlation = torch.corrcoef(jacobian.flatten(1).double()).nan_to_num(0.0)
        v = torch.linalg.eigvalsh(correlation).clamp(min=0)
        return float(-((v + K).log() + 1 / (v + K)).sum())
