"""The covariance of a random, wide, fully connected ReLU network (Lee et al., 2018); see `fully_connected.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from robust_nas.kernels.fully_connected import FullyConnected

if TYPE_CHECKING:
    from torch import Tensor


class ReLUNNGP(FullyConnected):
    """The kernel of a wide fully connected ReLU network whose last layer alone is trained."""

    name: Literal["relu-nngp"] = "relu-nngp"

    def gram(self, x: Tensor, z: Tensor) -> Tensor:
        """Return S `[A, B]`."""
        return self.both(x, z)[0]
