"""SynFlow (Tanaka et al., 2020; as a proxy: Abdelfattah et al., 2021).

    R = 1^T f_|theta|(1),      score = log sum_theta theta dR/dtheta

f_|theta| is the network with the absolute values of its parameters and without batch norm, in float64; its input is an
image of ones. For L linear layers without bias every layer contributes R, so that the score is log(L R). Our choices:
the logarithm, since the flow of deep networks spans many orders of magnitude; the normalisation of the input stays, it
is the same for all networks that are compared. Without any flow the score is the logarithm of the smallest number.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.lazy import torch
from robust_nas.search.proxies.proxy import Proxy

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class SynFlow(Proxy):
    """The flow through all parameters; no image is looked at, only its shape."""

    passes: ClassVar[int] = 2

    name: Literal["synflow"] = "synflow"

    def score(self, network: nn.Module, images: Tensor, labels: Tensor | None, generator: Generator) -> float:
        """Return the logarithm of the flow."""
        own = _without_batch_norm(copy.deepcopy(network).double().eval())
        with torch.no_grad():
            for parameter in own.parameters():
                parameter.abs_()
        parameters = [parameter.requires_grad_(True) for parameter in own.parameters()]
        with torch.enable_grad():
            total = own(torch.ones_like(images[:1], dtype=torch.float64)).sum()
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        flows = [(p * g).sum() for p, g in zip(parameters, gradients, strict=True) if g is not None]
        return float(torch.stack(flows).sum().detach().clamp(min=torch.finfo(torch.float64).tiny).log())


def _without_batch_norm(network: nn.Module) -> nn.Module:
    """Return the network with an identity in the place of every batch norm, changed in place."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, torch.nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, torch.nn.Identity())
    return network
