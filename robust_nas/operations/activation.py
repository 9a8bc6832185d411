"""The protocol of activations of networks that have a choice (residual networks and MLPs; cells have ReLU).

A new activation is a subclass with `layer` (or `build`), in a file of its own, and a line in `ACTIVATIONS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from robust_nas.operations.layer import Layer
from robust_nas.registry import Method

if TYPE_CHECKING:
    from torch import nn


class Activation(Method):
    """Base of all activations. They have no options: the class itself is asked."""

    layer: ClassVar[Layer | None] = None  # makes the module from the number of channels

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a method that is written for instances."""
        super().__pydantic_init_subclass__(**kwargs)
        for name in ("build", "params"):
            if name in vars(cls) and not isinstance(vars(cls)[name], (classmethod, staticmethod)):
                raise TypeError(f"{cls.__name__}.{name} needs @classmethod: activations are not instantiated")

    @classmethod
    def params(cls, channels: int) -> int:
        """Return the number of parameters of one module."""
        return 0

    @classmethod
    def build(cls, channels: int) -> nn.Module:
        """Return a module for `[B, C]` and `[B, C, H, W]` of `channels`, which may hold parameters."""
        if cls.layer is None:
            raise NotImplementedError(f"{cls.__name__} has neither a layer nor a build of its own")
        return cls.layer(channels)
