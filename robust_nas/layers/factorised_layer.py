"""What layers in factors share: they take the place of a dense layer, and know the dense one that computes the same.

This file needs torch alone: the plain-Python export carries its text.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class FactorisedLayer(nn.Module):
    """Base of all layers in factors."""

    def to_dense(self) -> nn.Module:
        """Return the dense layer that computes the same."""
        raise NotImplementedError


def settings(layer: nn.Module) -> dict[str, Any]:
    """Return device and type of a layer's weights."""
    weight: Any = layer.weight
    return {"device": weight.device, "dtype": weight.dtype}


def window(layer: nn.Conv2d) -> dict[str, Any]:
    """Return what a convolution's kernel does, for the factor that takes it over."""
    return {
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "padding_mode": layer.padding_mode,
    }


def refuse_ranks(like: nn.Conv2d | nn.Linear, ranks: dict[str, tuple[int, int]]) -> None:
    """Raise `ValueError` for a grouped convolution, or a rank outside 1 to its limit."""
    if isinstance(like, nn.Conv2d) and like.groups != 1:
        raise ValueError(f"a convolution of {like.groups} groups has no such form")
    for name, (rank, most) in ranks.items():
        if not 1 <= rank <= most:
            raise ValueError(f"{name} is {rank}; 1 to {most} are possible")


def dense_convolution(weight: Tensor, bias: Tensor | None, like: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution of these weights with the stride, padding and dilation of `like`."""
    outputs, inputs = weight.shape[:2]
    dense = nn.Conv2d(inputs, outputs, bias=bias is not None, **window(like), **settings(like))
    with torch.no_grad():
        dense.weight.copy_(weight)
        if bias is not None and dense.bias is not None:
            dense.bias.copy_(bias)
    return dense
