"""KIP, kernel-inducing points: support images whose kernel regression is accurate (Nguyen, Chen and Lee, 2021).

    min over X in [0, 1] (and y) of   1/2 mean || k(X', X) (k(X, X) + reg tr / n I)^-1 y - y' ||^2

Source: the public code of the paper (google-research/kip): centred one-hot targets, Adam with 4e-2 on standardised
pixels, reg 1e-6, class-balanced batches, labels fixed by default. Ours: images keep to 0..1, batches of 500.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from robust_nas.distillation.distiller import Distiller

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from robust_nas.attacks import ThreatModel
    from robust_nas.nets.kernel_regression import KernelRegressionNetwork


class KIP(Distiller):
    """Support images that are learned from real images as they are."""

    name: Literal["kip"] = "kip"

    def attacked(
        self,
        network: KernelRegressionNetwork,
        images: Tensor,
        targets: Tensor,
        threat_model: ThreatModel,
        generator: Generator,
    ) -> Tensor:
        """Return the images."""
        return images
