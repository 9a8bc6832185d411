"""Consistency of a network and a perturbed copy, CRoZe-style (Ha et al., NeurIPS 2023).

    theta' = theta + beta ||theta|| g / ||g||  tensor by tensor,   g = dL/dtheta(x)        a "robust" surrogate
    x'     = clip(x + eps sign(dL'/dx), 0, 1)                                           attacked through it
    Z_m = 1 + cos(z_m(x), z'_m(x'))           outputs of layer m
    G_m = |cos(g_m(x), g'_m(x'))|             gradients of its weights
    P_m = 1 + cos(w_m - lr g_m, w'_m - lr g'_m)       weights after a step each
    score = sum_m Z_m P_m G_m                 over convolutions and linear layers

"Style": the form of the product and of the surrogate is our reading of the method's description, and the size of the
steps is our choice. Batch norm uses the statistics of the batch. A layer that does not reach the logits adds 0.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.config import NonNegative
from robust_nas.lazy import torch
from robust_nas.search.proxies.gradients import batch_statistics, input_gradient
from robust_nas.search.proxies.proxy import Proxy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

Layers = list[tuple["Tensor", "Tensor", "Tensor"]]  # output, weight and its gradient of every layer


class Consistency(Proxy):
    """How alike a network and an attacked, perturbed copy of it behave."""

    needs_labels: ClassVar[bool] = True
    passes: ClassVar[int] = 8

    name: Literal["consistency"] = "consistency"
    eps: NonNegative = 8 / 255  # L-infinity size of the attack on the images
    beta: NonNegative = 0.1  # length of the step to the surrogate, relative to the norm of a parameter
    lr: NonNegative = 0.1  # learning rate of one step of both networks

    def score(self, network: nn.Module, images: Tensor, labels: Tensor | None, generator: Generator) -> float:
        """Return the sum over layers."""
        assert labels is not None  # noqa: S101 - needs_labels
        own, surrogate = copy.deepcopy(network), copy.deepcopy(network)
        self._perturb(surrogate, images, labels)
        sign = input_gradient(surrogate, images, labels).sign()
        attacked = (images + self.eps * sign).clamp(0, 1)
        total = 0.0
        pairs = zip(_layers(own, images, labels), _layers(surrogate, attacked, labels), strict=True)
        for (z, w, g), (z_, w_, g_) in pairs:
            total += (
                (1 + _cosine(z, z_)) * (1 + _cosine(w - self.lr * g, w_ - self.lr * g_)) * abs(_cosine(g, g_))
            )
        return total

    def _perturb(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        """Move every parameter up the loss, in place."""
        parameters = list(network.parameters())
        with batch_statistics(network):
            for parameter in parameters:
                parameter.requires_grad_(True)
            loss = torch.nn.functional.cross_entropy(network(images), labels)
            found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            for parameter, g in zip(parameters, found, strict=True):
                tiny = torch.finfo(g.dtype).tiny
                parameter.add_(self.beta * parameter.norm() * g / g.norm().clamp(min=tiny))


def _layers(network: nn.Module, images: Tensor, labels: Tensor) -> Layers:
    """Return output, weight and gradient of every convolution and linear layer that was called, in their order."""
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    modules = [module for module in network.modules() if isinstance(module, kinds)]
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: object, out: Tensor) -> None:
        outputs[module] = out.detach()

    handles = [module.register_forward_hook(keep) for module in modules]
    with batch_statistics(network):
        for module in modules:
            module.weight.requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        called = [module for module in modules if module in outputs]
        weights = [module.weight for module in called]
        found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    for handle in handles:
        handle.remove()
    return [(outputs[m], m.weight.detach(), g) for m, g in zip(called, found, strict=True)]


def _cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of two tensors as vectors; 0 where one of them is zero."""
    a, b = a.flatten().double(), b.flatten().double()
    norms = a.norm() * b.norm()
    return float(a @ b / norms) if norms > 0 else 0.0
