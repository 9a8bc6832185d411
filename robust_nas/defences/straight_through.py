"""BPDA with the identity: the value of a transformation, the gradient of none (Athalye et al., 2018, section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def straight_through(x: Tensor, transformed: Tensor) -> Tensor:
    """Return `transformed`, exactly, with the gradient of `x`: d out / d x = 1; the two have one shape.

    `x - x.detach()` is zero for every finite x, so that nothing is rounded; `x + (t - x).detach()` would round.
    Plain operations: what torch.fx traces of it has the same gradient.
    """
    return transformed.detach() + (x - x.detach())
