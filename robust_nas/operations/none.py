"""The absent edge (NAS-Bench-201's `none`): zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.operations.cost import Cost
from robust_nas.operations.layer import Layer
from robust_nas.operations.operation import Operation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.operations.folded_terms import Term


class NoEdge(Operation):
    """Zeros. A fused cell calls the module: a node may have no other term."""

    name: Literal["none"] = "none"
    layer = Layer("robust_nas.layers.pooling:Zero")
    connects: ClassVar[bool] = False

    @classmethod
    def cost(cls, channels: int, stride: int, pixels: int, affine: bool) -> Cost:
        """Return no parameters and no MACs."""
        return Cost(0, 0)

    @classmethod
    def knows(cls, module: nn.Module) -> bool:
        """Return whether the module is as it was built."""
        from robust_nas.layers.inspection import has_hooks
        from robust_nas.layers.pooling import Zero

        return type(module) is Zero and not has_hooks(module)

    @classmethod
    def fold(cls, module: nn.Module, weight: Tensor) -> tuple[list[Term], Tensor | None]:
        """Return no term: the node starts from its bias."""
        return [], None
