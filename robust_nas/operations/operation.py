"""The protocol of operations: what can stand on an edge of a cell.

A new operation is a subclass with `cost` and `layer` (or `build`), in a file of its own, and a line in `OPERATIONS`. It
is then searched, derived, counted, folded for attacks and exported. `knows`, `fuse` and `fold` make it faster inside
a supernet; without them its module is called as it is.

C channels in and out, H x W the input's size; the output has ceil(H / stride) x ceil(W / stride) pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from robust_nas.operations.cost import Cost
from robust_nas.operations.layer import Layer
from robust_nas.registry import Method

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.operations.folded_terms import Term
    from robust_nas.operations.fused_terms import State, WeightedModule


class Operation(Method):
    """Base of all operations. They have no options: the class itself is asked."""

    layer: ClassVar[Layer | None] = None  # makes the module from (channels, stride, affine)
    is_skip: ClassVar[bool] = (
        False  # whether it passes its input on: searches that collapse end in such operations
    )
    connects: ClassVar[bool] = True  # whether the output depends on the input

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a method that is written for instances."""
        super().__pydantic_init_subclass__(**kwargs)
        for name in ("cost", "activations", "build", "candidate", "knows", "fuse", "fold"):
            if name in vars(cls) and not isinstance(vars(cls)[name], (classmethod, staticmethod)):
                raise TypeError(f"{cls.__name__}.{name} needs @classmethod: operations are not instantiated")

    @classmethod
    def cost(cls, channels: int, stride: int, pixels: int, affine: bool) -> Cost:
        """Return parameters and MACs of one image for `pixels` of the output."""
        raise NotImplementedError(f"{cls.__name__} does not say what it costs")

    @classmethod
    def activations(cls, stride: int) -> tuple[int, int]:
        """Return how many activations it has on maps of the input's size, and of the output's.

        They are those that its module's `set_activation` replaces where a network has another one than ReLU.
        """
        return 0, 0

    @classmethod
    def build(cls, channels: int, stride: int, affine: bool) -> nn.Module:
        """Return the module of a network, `[B, C, H, W]` to `[B, C, H', W']`; `affine` is of its batch norms."""
        if cls.layer is None:
            raise NotImplementedError(f"{cls.__name__} has neither a layer nor a build of its own")
        return cls.layer(channels, stride, affine)

    @classmethod
    def candidate(cls, channels: int, stride: int) -> nn.Module:
        """Return the module of a supernet: batch norms without scale and shift."""
        return cls.build(channels, stride, False)

    @classmethod
    def knows(cls, module: nn.Module) -> bool:
        """Return whether `fuse` and `fold` can read a candidate; a user may have changed it since it was built."""
        return False

    @classmethod
    def fuse(cls, state: State, column: Sequence[WeightedModule], totals: list[Tensor | None]) -> None:
        """Add to the `totals` of the nodes what the candidates on all edges of one state give, with all gradients."""
        from robust_nas.operations.fused_terms import add_modules

        add_modules(state, column, totals)

    @classmethod
    def fold(cls, module: nn.Module, weight: Tensor) -> tuple[list[Term], Tensor | None]:
        """Return the terms of a candidate in eval mode with its edge weight, and its part of the node's bias `[C]`."""
        from robust_nas.operations.folded_terms import fold_module

        return fold_module(module, weight)
