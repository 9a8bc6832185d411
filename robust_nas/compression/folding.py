"""Batch norms into the convolutions before them, for good: exact in eval mode and compared, fewer operations to run.

    bn(W * x + b) = (g / s) W * x + g / s (b - mean) + beta,   s = sqrt(var + eps)

It is the last step of a compression: rows of the 1x1 convolution that ends a factorised layer are scaled alike, so that
folding before or after a decomposition gives the same function, while the weighted error is measured on the weights as
they were trained.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.attacks.attacked_model import attack_mode
from robust_nas.attacks.folding import COMPARED, foldable, same_logits
from robust_nas.layers.factorised import LayerForm, rebuild
from robust_nas.layers.norm_folding import fold_norm


def fold_batch_norms(network: nn.Module, images: Tensor) -> tuple[nn.Module, tuple[LayerForm, ...], str]:
    """Return a copy with batch norms folded, the forms that rebuild it, and why nothing was folded (else empty).

    A batch norm is folded that alone follows a convolution, both read once, as torch.fx sees it. The copy has to give
    the logits of the network, in eval mode, for the first of `images` `[N, C, H, W]`; where it does not, or fails,
    nothing is folded.
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
    why = _why_not_used(own, network, images) if pairs else ""
    return (copy.deepcopy(network), (), why) if why else (own, forms, "")


def _why_not_used(folded: nn.Module, network: nn.Module, images: Tensor) -> str:
    """Return why a folded copy cannot take the network's place; empty where it gives its logits."""
    try:
        with attack_mode(network), attack_mode(folded):
            same = same_logits(folded, network, images)
    except Exception as error:  # whatever a foreign module raises without its batch norm
        return f"its folded copy fails ({type(error).__name__}: {str(error)[:120]})"
    return "" if same else "its folded copy gives other logits"


def random_images(network: nn.Module, input_shape: tuple[int, int, int]) -> Tensor:
    """Return images `[COMPARED, C, H, W]` of uniform noise in the type of a network and on its device, of seed 0."""
    weight = next(network.parameters(), torch.empty(0))
    drawn = torch.rand(COMPARED, *input_shape, generator=torch.Generator().manual_seed(0))
    return drawn.to(weight)
