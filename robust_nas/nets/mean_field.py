"""A network whose weights are drawn from a Gaussian posterior in every forward pass.

    w = mu + softplus(rho) * e,   e ~ N(0, I)
    KL(N(mu, s^2) || N(0, p^2)) = log(p / s) + (s^2 + mu^2) / (2 p^2) - 1/2      summed over all weights

`member` is the network with the weights mu; `rho` has a tensor for each of them, named with "/" for the points. Scale
and shift of batch norms are trained as they are. Their statistics in training are those of the drawn networks.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from robust_nas.nets.networks import NETWORKS


class MeanFieldNetwork(nn.Module):
    """A Gaussian posterior over the weights of `member`; `forward` gives logits `[B, K]` of one draw."""

    def __init__(
        self,
        member: str,
        arguments: Mapping[str, Any],
        classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        samples: int = 16,
        initial_sigma: float = 0.08,
    ) -> None:
        super().__init__()
        self.member = NETWORKS.get(member)(classes=classes, mean=mean, std=std, **arguments)
        self.inference_samples = samples
        self.generator: torch.Generator | None = None  # of passes in training mode; None: torch's global one
        self.present: torch.Generator | None = None  # of all passes inside `drawing_from`
        start = initial_sigma + math.log(-math.expm1(-initial_sigma))  # softplus(start) = initial_sigma
        self.rho = nn.ParameterDict(
            {
                name.replace(".", "/"): nn.Parameter(torch.full_like(mu, start))
                for name, mu in _weights(self.member).items()
            }
        )

    def posterior(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return mu and sigma of every weight, by its name in the member."""
        return {
            name: (mu, F.softplus(self.rho[name.replace(".", "/")]))
            for name, mu in _weights(self.member).items()
        }

    def drawn(self) -> dict[str, Tensor]:
        """Return one draw of the weights, by their names in the member; it is differentiable in mu and rho."""
        return {name: mu + sigma * self._noise(mu) for name, (mu, sigma) in self.posterior().items()}

    def _noise(self, like: Tensor) -> Tensor:
        generator = self.present or (self.generator if self.training else None)
        # Not `randn_like`, whose draws depend on the memory format.
        return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)

    def undecayed_parameters(self) -> list[nn.Parameter]:
        """Return rho: decay would draw it to 0, which is sigma = 0.69."""
        return list(self.rho.values())

    def draw_from(self, generator: torch.Generator) -> None:
        """Let passes in training mode draw from a generator, on the device of the weights."""
        self.generator = generator

    @contextlib.contextmanager
    def drawing_from(self, generator: torch.Generator) -> Iterator[None]:
        """Let all passes inside, in any mode, draw from a generator, on the device of the weights."""
        before, self.present = self.present, generator
        try:
            yield
        finally:
            self.present = before

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, K]` of images `[B, C, H, W]` in 0..1, all by one draw of the weights."""
        logits: Tensor = functional_call(self.member, self.drawn(), (x,))
        return logits

    def staged(self, x: Tensor) -> list[Tensor]:
        """Return the output of every stage for images `[B, C, H, W]` in 0..1, and the logits, by one draw."""
        weights = {f"network.{name}": weight for name, weight in self.drawn().items()}
        outputs: list[Tensor] = functional_call(_Staged(self.member), weights, (x,))
        return outputs

    def posterior_mean(self) -> nn.Module:
        """Return a copy of the member with the weights mu: a plain, deterministic network."""
        return copy.deepcopy(self.member)

    def kl(self, prior_sigma: float) -> Tensor:
        """Return the divergence of the posterior from N(0, prior_sigma^2), a scalar in nats, differentiable."""
        terms = [
            (prior_sigma / sigma).log() + (sigma**2 + mu**2) / (2 * prior_sigma**2) - 0.5
            for mu, sigma in self.posterior().values()
        ]
        return torch.stack([term.sum() for term in terms]).sum()

    def extra_repr(self) -> str:
        """Return the draws of an answer."""
        return f"samples={self.inference_samples}"


class _Staged(nn.Module):
    """A network whose forward pass gives its stages."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the output of every stage, and the logits."""
        outputs: list[Tensor] = self.network.staged(x)  # type: ignore[operator] # torch types every attribute alike
        return outputs


def _weights(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a network by name, each once, without scale and shift of batch norms."""
    norms = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, _BatchNorm)
        for parameter in module.parameters(recurse=False)
    }
    return {name: parameter for name, parameter in network.named_parameters() if id(parameter) not in norms}
