"""Kernel regression as an architecture: the number of support images and the kernel; the images are its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from robust_nas.config import Count, to_dict
from robust_nas.errors import ArchitectureError, ConfigError
from robust_nas.kernels import KERNELS, Kernel
from robust_nas.kernels.relu_ntk import ReLUNTK
from robust_nas.operations.cost import Cost, Part
from robust_nas.spaces.architecture import Architecture, InputShape, Json

MAX_SUPPORT = 10_000  # images: the solution takes the cube of their number


class KernelRegressionArchitecture(Architecture):
    """f(x) = sum_i k(x, s_i) a_i of support images s_i with coefficients a_i; `robust-nas distill` makes them."""

    called: ClassVar[str] = "a kernel regression"
    network: ClassVar[str] = "robust_nas.nets.kernel_regression:KernelRegressionNetwork"

    learns_by: ClassVar[str] = "distill"

    type: Literal["kernel-regression"] = "kernel-regression"
    support: Annotated[Count, Field(le=MAX_SUPPORT)]  # images
    kernel: Annotated[Kernel, KERNELS.field()] = ReLUNTK()  # of the regression

    def describe(self) -> str:
        """Return the size in words."""
        return f"{self.support} support images, {self.kernel.label}"

    def arguments(self, input_shape: InputShape) -> Json:
        """Return the options. Raise `ArchitectureError` for images that the kernel cannot take."""
        try:
            self.kernel.refuse_shape(input_shape)
        except ConfigError as error:
            raise ArchitectureError(f"{self.name}: {error}") from None
        return {"support": self.support, "shape": tuple(input_shape), "kernel": to_dict(self.kernel)}

    def parts(self, input_shape: InputShape, classes: int) -> Iterator[Part]:
        """Yield the kernel and the sum as one part, the head; images and coefficients are parameters."""
        macs = self.kernel.macs(input_shape, self.support)
        numbers = self.support * (math.prod(input_shape) + classes)
        yield Part("head", Cost(numbers, macs + self.support * classes))

    @property
    def total_depth(self) -> int:
        """Return 1: it is one sum."""
        return 1

    @property
    def total_width(self) -> int:
        """Return the number of support images."""
        return self.support

    def factors(self) -> dict[str, float | str]:
        """Return the sizes and the kernel."""
        return {"depth": 1, "width": self.support, "kernel": self.kernel.label}
