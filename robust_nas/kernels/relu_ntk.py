"""The neural tangent kernel of a fully connected ReLU network (Jacot et al., 2018); see `fully_connected.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from robust_nas.kernels.fully_connected import FullyConnected

if TYPE_CHECKING:
    from torch import Tensor


class ReLUNTK(FullyConnected):
    """The kernel by which gradient descent moves a wide fully connected ReLU network."""

    name: Literal["relu-ntk"] = "relu-ntk"

    def gram(self, x: Tensor, z: Tensor) -> Tensor:
        """Return T `[A, B]`."""
        return self.both(x, z)[1]
