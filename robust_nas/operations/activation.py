"""The protocol of activations, of which every architecture has one. A supernet has ReLU.

A new activation is a subclass with `layer` (or `build`), in a file of its own, and a line in `ACTIVATIONS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from robust_nas.operations.cost import Cost
from robust_nas.operations.layer import Layer
from robust_nas.registry import Method

if TYPE_CHECKING:
    from torch import nn


class Activation(Method):
    """Base of all activations. They have no options: the class itself is asked."""

    layer: ClassVar[Layer | None] = None  # makes the module from the number of channels
    # One module for all places of a stage with the same number of channels, which then has this attribute as well:
    shared: ClassVar[bool] = False
    needs_maps: ClassVar[bool] = False  # whether it is for `[B, C, H, W]` alone

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a method that is written for instances."""
        super().__pydantic_init_subclass__(**kwargs)
        for name in ("build", "params", "macs"):
            if name in vars(cls) and not isinstance(vars(cls)[name], (classmethod, staticmethod)):
                raise TypeError(f"{cls.__name__}.{name} needs @classmethod: activations are not instantiated")

    @classmethod
    def params(cls, channels: int) -> int:
        """Return the number of parameters of one module."""
        return 0

    @classmethod
    def macs(cls, channels: int, pixels: int) -> int:
        """Return the MACs of its convolutions on one map."""
        return 0

    @classmethod
    def cost(cls, channels: int, pixels: int) -> Cost:
        """Return what one place costs; the parameters of a shared module are counted once, elsewhere."""
        return Cost(0 if cls.shared else cls.params(channels), cls.macs(channels, pixels))

    @classmethod
    def build(cls, channels: int) -> nn.Module:
        """Return a module for `[B, C, H, W]` of `channels`, which may hold parameters; `[B, C]` as well in an MLP."""
        if cls.layer is None:
            raise NotImplementedError(f"{cls.__name__} has neither a layer nor a build of its own")
        return cls.layer(channels)
