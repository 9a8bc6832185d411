"""Batch norms into the convolutions before them, for good: exact in eval mode, fewer operations to run.

    bn(W * x + b) = (g / s) W * x + g / s (b - mean) + beta,   s = sqrt(var + eps)

It is the last step of a compression: rows of the 1x1 convolution that ends a factorised layer are scaled alike, so that
folding before or after a decomposition gives the same function, while the weighted error is measured on the weights as
they were trained.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from robust_nas.attacks.folding import foldable
from robust_nas.layers.factorised import LayerForm, rebuild
from robust_nas.layers.norm_folding import fold_norm


def fold_batch_norms(network: nn.Module) -> tuple[nn.Module, tuple[LayerForm, ...], str]:
    """Return a copy with batch norms folded, the forms that rebuild it, and why nothing was folded (else empty).

    A batch norm is folded that alone follows a convolution, both called once, as torch.fx sees it.
    """
    pairs = foldable(network)
    if isinstance(pairs, str):
        return copy.deepcopy(network), (), pairs
    own = copy.deepcopy(network)
    modules: dict[str, Any] = dict(network.named_modules())
    forms = tuple(
        form
        for convolution, norm in pairs
        for form in (LayerForm(convolution, "biased"), LayerForm(norm, "identity"))
    )
    rebuild(own, forms)
    with torch.no_grad():
        for name, norm_name in pairs:
            weight, bias = fold_norm(modules[name], modules[norm_name])
            folded: Any = own.get_submodule(name)
            folded.weight.copy_(weight)
            folded.bias.copy_(bias)
    return own, forms, ""
