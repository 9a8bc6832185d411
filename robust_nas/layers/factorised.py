"""Layers in another form by name: what a stored network is rebuilt from, names and numbers alone.

One file a form: `gdws_conv.py`, `tucker2_conv.py`, `low_rank.py`; how their weights are found is in `compression/`.
This file needs torch and those alone: the plain-Python export carries its text.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import nn

from robust_nas.layers.factorised_layer import FactorisedLayer
from robust_nas.layers.gdws_conv import GDWSConv2d
from robust_nas.layers.low_rank import LowRankConv2d, LowRankLinear
from robust_nas.layers.tucker2_conv import Tucker2Conv2d

__all__ = [
    "FORMS",
    "FactorisedLayer",
    "GDWSConv2d",
    "LayerForm",
    "LowRankConv2d",
    "LowRankLinear",
    "Tucker2Conv2d",
    "dense",
    "dense_layer",
    "rebuild",
    "replace_module",
]


class LayerForm(NamedTuple):
    """What takes the place of a layer: its dotted name, the form, and the form's numbers.

    `gdws`: g of every input channel; `tucker-2`: r_in, r_out; `low-rank`: r; `biased`, a convolution that has a bias
    now, and `identity`, the batch norm that went into it: none.
    """

    name: str
    form: str
    numbers: tuple[int, ...] = ()


def _biased(layer: Any) -> nn.Module:
    """Return the convolution with a bias (zeros where it had none)."""
    own = copy.deepcopy(layer)
    if own.bias is None:
        own.bias = nn.Parameter(own.weight.new_zeros(len(own.weight)))
    return own  # type: ignore[no-any-return]


def _low_rank(layer: Any, rank: int) -> nn.Module:
    return LowRankLinear(layer, rank) if isinstance(layer, nn.Linear) else LowRankConv2d(layer, rank)


# form -> build(layer that it takes the place of, numbers)
FORMS: dict[str, Callable[[Any, tuple[int, ...]], nn.Module]] = {
    "gdws": lambda layer, numbers: GDWSConv2d(layer, numbers),
    "tucker-2": lambda layer, numbers: Tucker2Conv2d(layer, *numbers),
    "low-rank": lambda layer, numbers: _low_rank(layer, *numbers),
    "biased": lambda layer, numbers: _biased(layer),
    "identity": lambda layer, numbers: nn.Identity(),
}
TAKES: dict[str, tuple[type[nn.Module], ...]] = {
    "gdws": (nn.Conv2d,),
    "tucker-2": (nn.Conv2d,),
    "low-rank": (nn.Conv2d, nn.Linear),
    "biased": (nn.Conv2d,),
    "identity": (nn.BatchNorm2d,),
}
NUMBERS = {"tucker-2": 2, "low-rank": 1, "biased": 0, "identity": 0}


def rebuild(network: nn.Module, layers: Iterable[LayerForm]) -> None:
    """Put the forms, with fresh weights, in the place of the named layers, one after the other, in place.

    A layer in several places is replaced in all of them. Raises `ValueError` for a layer that is not there,
    or that the form cannot take the place of.
    """
    for name, form, numbers in layers:
        found = dict(network.named_modules()).get(name)
        if form not in FORMS:
            raise ValueError(f"{name}: {form!r} is no form; forms: {', '.join(FORMS)}")
        if found is None or not isinstance(found, TAKES[form]):
            there = "not there" if found is None else f"a {type(found).__name__}"
            raise ValueError(
                f"{name} is {there}; {form} takes {' or '.join(t.__name__ for t in TAKES[form])}"
            )
        if len(numbers) != NUMBERS.get(form, len(numbers)):
            raise ValueError(f"{name}: {form} takes {NUMBERS[form]} numbers, got {len(numbers)}")
        try:
            made = FORMS[form](found, tuple(numbers))
        except ValueError as error:
            raise ValueError(f"{name}: {form}: {error}") from None
        replace_module(network, found, made)


def replace_module(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in the place of another wherever that is below `network`; mode is taken over."""
    new.train(old.training)
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):  # named_children gives a shared one once
            if child is old:
                setattr(parent, name, new)


def dense(network: nn.Module) -> nn.Module:
    """Return a copy in which every factorised layer is the dense one that computes the same, for faster attacks."""
    own = copy.deepcopy(network)
    for module in reversed(list(own.modules())):  # factors of factors first
        if isinstance(module, FactorisedLayer):
            replace_module(own, module, module.to_dense())
    return own


def dense_layer(layer: FactorisedLayer) -> nn.Module:
    """Return the dense layer that computes the same as one whose factors may be in factors themselves."""
    inner = list(layer.modules())[1:]
    nested = any(isinstance(module, FactorisedLayer) for module in inner)
    return (dense(layer) if nested else layer).to_dense()  # type: ignore[no-any-return,operator]
