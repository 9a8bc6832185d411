"""An ensemble of networks of one architecture, the particles: log of the mean of their softmax.

    f(x) = log 1/n sum_i softmax f(x; th_i),   so that softmax f(x) is the mean probability

The particles are built one after the other, from one stream of random numbers: the first is the network that the seed
alone gives. B batch, K classes, n particles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from robust_nas.nets.networks import NETWORKS


class ParticleEnsemble(nn.Module):
    """Particles; `forward` gives the log of their mean probability `[B, K]`, or with `draws` the logits of one of them.

    One drawn particle serves the whole batch, and the answer is the mean softmax of `draws` passes.
    """

    def __init__(
        self,
        member: str,
        arguments: Mapping[str, Any],
        particles: int,
        classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        draws: int | None = None,
    ) -> None:
        super().__init__()
        make = NETWORKS.get(member)
        self.members = nn.ModuleList(
            make(classes=classes, mean=mean, std=std, **arguments) for _ in range(particles)
        )
        self.particles = particles
        self.inference_samples = draws
        self.generator: torch.Generator | None = None  # of passes in training mode; None: torch's global one

    def member_logits(self, x: Tensor) -> Tensor:
        """Return the logits `[n, B, K]` of all particles for images `[B, C, H, W]` in 0..1.

        On a GPU by one vectorised pass, where that is possible; on a CPU a loop is faster (docs/methods/ensembles.md).
        """
        if x.is_cuda and _is_vectorisable(self.members):
            return vectorised_logits(self.members, x)
        return self._looped_logits(x)

    def _looped_logits(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members])

    def forward(self, x: Tensor) -> Tensor:
        """Return log probabilities `[B, K]` of images `[B, C, H, W]` in 0..1; of one particle, its logits."""
        if self.inference_samples is not None:
            logits: Tensor = self._one()(x)
            return logits
        # A loop, which torch.fx, torch.compile and the exporters follow.
        return log_mean_softmax(self._looped_logits(x), self.particles)

    def staged(self, x: Tensor) -> list[Tensor]:
        """Return for every stage the outputs of all particles, next to each other in dimension 1; and the answer."""
        members: Iterable[Any] = self.members if self.inference_samples is None else [self._one()]
        *stages, logits = zip(*[member.staged(x) for member in members], strict=True)
        return [
            *(torch.cat(stage, 1) for stage in stages),
            log_mean_softmax(torch.stack(logits), len(logits)),
        ]

    def _one(self) -> nn.Module:
        """Return a particle, drawn uniformly."""
        generator = self.generator if self.training else None
        device = "cpu" if generator is None else generator.device
        return self.members[int(torch.randint(self.particles, (), generator=generator, device=device))]

    def draw_from(self, generator: torch.Generator) -> None:
        """Let passes in training mode draw from a generator."""
        self.generator = generator

    def extra_repr(self) -> str:
        """Return the particles that an answer draws."""
        return f"draws={self.inference_samples}"


def log_mean_softmax(logits: Tensor, particles: int) -> Tensor:
    """Return the log of the mean softmax `[B, K]` of logits `[n, B, K]`; of one particle, its logits as they are."""
    if particles == 1:
        return logits[0]
    wide = logits + logits.new_zeros(1, dtype=torch.float32)  # under autocast they are bf16
    return wide.log_softmax(2).logsumexp(0) - math.log(particles)


def vectorised_logits(members: nn.ModuleList, x: Tensor) -> Tensor:
    """Return the logits `[n, B, K]` of networks of one architecture by `torch.vmap` over their stacked tensors.

    Gradients reach the networks' own parameters, and what the pass changes of the buffers is written to them.
    """
    first = members[0]
    parameters = [dict(member.named_parameters()) for member in members]
    buffers = [dict(member.named_buffers()) for member in members]
    weights, state = (
        {name: torch.stack([own[name] for own in tensors]) for name in tensors[0]}
        for tensors in (parameters, buffers)
    )

    def call(own_weights: dict[str, Tensor], own_state: dict[str, Tensor]) -> Any:
        return functional_call(first, {**own_weights, **own_state}, (x,))

    logits: Tensor = torch.vmap(call, randomness="different")(weights, state)  # of dropout
    if first.training:
        with torch.no_grad():
            for index, own in enumerate(buffers):
                for name, buffer in own.items():
                    buffer.copy_(state[name][index])
    return logits


def _is_vectorisable(members: nn.ModuleList) -> bool:
    """Return whether all layers with weights are torch's own, and no module has hooks.

    A layer of ours may have a backward pass that vmap does not know, or exchange statistics with other ranks.
    """
    return all(
        (type(module).__module__.startswith("torch.") or not module._parameters)
        and not (module._forward_hooks or module._forward_pre_hooks)
        for module in members.modules()
    )
