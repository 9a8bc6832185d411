"""What a network may look like after a step that trains: later steps refuse a budget before anything is trained.

A step gives every layer l one of many forms a, and keeps the weights of all layers together within a budget. A later
step that needs at least the multiply-adds least_a of a form that has macs_a reaches the share s with no choice of forms
if, for any mu >= 0,

    sum_l min_a (least_a - s macs_a + mu params_a)  >  mu budget                    (weak Lagrangian duality)

It is a bound: what it lets through may still be out of reach of the network that the step then makes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

MULTIPLIERS = 41  # values of mu that are tried, from 1/100 to 100 times the network's MACs per weight


class Convolution(NamedTuple):
    """A convolution without groups beyond 1x1; one an element of the tensors, which broadcast."""

    outputs: Tensor
    inputs: Tensor
    taps: int
    pixels: int

    @property
    def macs(self) -> Tensor:
        """Return the multiply-adds for one image."""
        return self.outputs * self.inputs * self.taps * self.pixels


class Form(NamedTuple):
    """Forms that a layer may get, one an element of the tensors: weights, a convolution, multiply-adds in the rest."""

    params: Tensor
    convolution: Convolution | None
    rest: Tensor


class Outcome(NamedTuple):
    """Networks that a step may make: the forms of every layer, in order of use, and the weights of all at most."""

    label: str
    layers: tuple[tuple[Form, ...], ...]
    budget: float


def is_out_of_reach(outcome: Outcome, share: float, least: Callable[[Convolution], Tensor]) -> bool:
    """Return whether no network of the outcome has a form of at most this share of its multiply-adds.

    `least` gives the fewest multiply-adds that a convolution can be replaced by.
    """
    layers = []
    for forms in outcome.layers:
        excess, params = [], []
        for form in forms:
            own, macs = form.rest, form.rest
            if form.convolution is not None:
                dense = form.convolution.macs
                own, macs = own + torch.minimum(least(form.convolution), dense), macs + dense
            excess.append((own - share * macs).double().flatten())
            params.append(form.params.double().flatten())
        layers.append((torch.cat(excess), torch.cat(params)))
    scale = sum(float(excess.abs().max()) for excess, _ in layers) / outcome.budget
    tried = [0.0, *(scale * torch.logspace(-2, 2, MULTIPLIERS)).tolist()]
    return any(
        sum(float((excess + mu * params).min()) for excess, params in layers) > mu * outcome.budget
        for mu in tried
    )
