"""Pointwise matrices fitted to images, so that all channels together correct a decomposition (our choice).

A decomposition sees one channel at a time, and weights alone. Once the kernels D are chosen, the pointwise P is free.
Layer after layer, with the maps z of the network as it is compressed so far, and the output y of the dense layer in the
original network on the same images,

    min_{P, b}  E ||P z + b - y||^2     normal equations in float64, with a ridge of 1e-6 of their mean diagonal

so that every layer also corrects the layers before it. No training, no labels. The bound by the weighted errors holds
for the decomposition, before this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.layers.factorised import LayerForm, rebuild

RIDGE = 1e-6


def refit(
    original: nn.Module, compressed: nn.Module, names: Sequence[str], images: Tensor, batch_size: int = 64
) -> tuple[LayerForm, ...]:
    """Fit the pointwise stages of the named GDWS layers in turn, in place; returns the forms of their new biases.

    Both networks are in eval mode and on the images' device; `images` are float `[N, C, H, W]` in 0..1.
    """
    forms = []
    for name in names:
        form = LayerForm(f"{name}.pointwise", "biased")
        rebuild(compressed, [form])
        forms.append(form)
        pointwise: Any = compressed.get_submodule(f"{name}.pointwise")
        products = _products(
            original.get_submodule(name), pointwise, original, compressed, images, batch_size
        )
        inner, outer = products
        inner.diagonal().add_(RIDGE * inner.diagonal().mean())
        solution = torch.linalg.solve(inner, outer)  # [G + 1, M]
        with torch.no_grad():
            pointwise.weight.copy_(solution[:-1].T[:, :, None, None])
            pointwise.bias.copy_(solution[-1])
    return tuple(forms)


def _products(
    dense: nn.Module,
    pointwise: nn.Module,
    original: nn.Module,
    compressed: nn.Module,
    images: Tensor,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Sum z z^T `[G + 1, G + 1]` and z y^T `[G + 1, M]` over images and pixels; z ends in 1; float64."""
    targets: list[Tensor] = []
    maps: list[Tensor] = []
    hooks = [
        dense.register_forward_hook(lambda _, given, output: targets.append(output.detach().clone())),
        pointwise.register_forward_hook(lambda _, given, output: maps.append(given[0].detach().clone())),
    ]
    inner: Any = 0
    outer: Any = 0
    try:
        with torch.no_grad():
            for part in torch.split(images, batch_size):
                original(part)
                compressed(part)
                for target, own in zip(targets, maps, strict=True):  # one a call of the layer
                    y, z = (t.transpose(0, 1).flatten(1).double() for t in (target, own))
                    z = torch.cat([z, z.new_ones(1, z.shape[1])])
                    inner, outer = inner + z @ z.T, outer + z @ y.T
                targets.clear()
                maps.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return inner, outer
