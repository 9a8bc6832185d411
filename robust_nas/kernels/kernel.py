"""The protocol of kernels, and `KERNELS`, which knows them by name.

A new kernel is a subclass with `gram` and `macs`, in a file of its own, and a line in `KERNELS`. It is symmetric and
positive semidefinite, computed in float64, and differentiable for both images, also where they are equal.

A, B numbers of images, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_nas.registry import Method, Registry

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, int, int]  # channels, height, width


class Kernel(Method):
    """Base of all kernels: k(x, z) of images on the scale that a network's first layer gives them."""

    def gram(self, x: Tensor, z: Tensor) -> Tensor:
        """Return k(x_i, z_j), float64 `[A, B]`, of images `[A, C, H, W]` and `[B, C, H, W]`."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it compares images")

    def macs(self, shape: Shape, support: int) -> int:
        """Return the multiply-accumulates of matrix products in k between one image and `support` others."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it costs")

    def refuse_shape(self, shape: Shape) -> None:
        """Raise `ConfigError` for images that the kernel cannot take."""


KERNELS = Registry(
    "kernel",
    Kernel,
    "robust_nas.kernels",
    {
        "relu-ntk": "relu_ntk:ReLUNTK",
        "relu-nngp": "relu_nngp:ReLUNNGP",
        "myrtle-ntk": "myrtle_ntk:MyrtleNTK",
        "linear": "linear:LinearKernel",
    },
    group="robust_nas.kernels",
)
