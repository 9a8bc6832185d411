"""What operations add to the nodes of a fused cell, with all gradients.

B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class State:
    """A state `[B, C, H, W]` of a cell, and its ReLU, computed once for all edges."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.relu = x, F.relu(x)


class WeightedModule(NamedTuple):
    """A candidate on an edge into `node`, and its edge weight (a scalar)."""

    node: int
    module: nn.Module
    weight: Tensor


def added(total: Tensor | None, term: Tensor) -> Tensor:
    """Return the sum; the first term is its memory, in float32 at least: under autocast, terms have fewer bits."""
    if total is None:
        return term.float() if term.dtype in (torch.bfloat16, torch.float16) else term
    return total.add_(term)


def added_scaled(total: Tensor | None, term: Tensor, weight: Tensor) -> Tensor:
    """Return the sum of `total` and weight times the term."""
    return added(None, term * weight) if total is None else total.addcmul_(term, weight)


def add_modules(state: State, column: Iterable[WeightedModule], totals: list[Tensor | None]) -> None:
    """Add weight times the module's own output to each node: right for any module."""
    for node, module, weight in column:
        totals[node] = added_scaled(totals[node], module(state.x), weight)
