"""IG-BNN: particles by SVGD, with the information gain of attacked images drawn to that of clean ones (Doan et al.).

    x'        attack of the recipe's loss on one particle l, drawn uniformly for every batch                    (Eq 7)
    IG(x)   = 1/n sum_k H[p_k(x)] - H[1/n sum_k p_k(x)],    p_k = softmax f(.; th_k):  minus a mutual information (Eq 8)
    L       = 1/n sum_k CE(f(x'; th_k), y) + CE(f(x'; th_l), y) + lambda mean_b [IG(x_b) - IG(x'_b)]            (Eq 9)
    phi_i   = sum_j [k(th_j, th_i) grad_j L - gamma/n grad_{th_j} k(th_j, th_i)]           (Algorithm 1, line 10)

By the ICLR 2022 submission ("Bayesian Learning with Information Gain Provably Bounds Risk for a Robust Adversarial
Defense"); the paper of ICML 2022 was not available. The factor 1/p(D) of Eq 8, a constant, is left out. Eq 9 is
signed: descending it lowers the mutual information of attacked images and raises that of clean ones. With `absolute`
the term is |IG(x_b) - IG(x'_b)| of each image, as in Proposition 1; it is least where both are the same, which is what
the paper asks for in words.

phi is left in the place of the gradients (`training/svgd.py`): the optimiser's momentum and weight decay follow it, and
penalties of hooks are each particle's own, not through the kernel. With one particle IG is 0, and phi the gradient of
2 CE(f(x'), y). Defaults: the bandwidth is the paper's; gamma is that of the released code; lambda is our choice (the
paper's is in an appendix that was not available; the released script for STL-10 has 5, with the absolute form).

Batch norms: the attack sees running statistics; clean and attacked images go through all particles one after the other
in training mode, each with its own batch statistics, and move the running ones, as in TRADES.

n particles, P trained numbers of each, B batch, K classes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from robust_nas.config import NonNegative
from robust_nas.lazy import torch
from robust_nas.training.context import Batch, TrainingContext
from robust_nas.training.hook import TrainingHook
from robust_nas.training.loss import STEP_PASSES, Loss, cross_entropy, to_float32
from robust_nas.training.particles import ParticleStepOptions
from robust_nas.training.step import Measured, TrainingStep
from robust_nas.training.svgd import Bandwidth, svgd_directions

if TYPE_CHECKING:
    from torch import Tensor


class IGBNN(ParticleStepOptions):
    """SVGD on the adversarial loss of an ensemble, with an information-gain term (Doan et al., 2022).

    `information`: lambda. `gamma`: of the repulsion. `bandwidth`: h, a number or its rule: `median` of the distances
    (the paper), or `scaled-median`. `absolute`: |.| around the information-gain term of each image.
    """

    name: Literal["ig-bnn"] = "ig-bnn"
    information: NonNegative = 1.0  # lambda, weight of the information gain
    gamma: NonNegative = 0.01  # weight of the repulsion
    bandwidth: Bandwidth = "median"  # h of the kernel: a number, or its rule
    absolute: bool = False  # whether the term of each image is taken without its sign

    def refuse(self, loss: Loss) -> None:
        """Raise `ValueError` for a loss that is more than the cross-entropy on its images."""
        if not loss.plain:
            raise ValueError(
                f"step 'ig-bnn' has a loss of its own, for which it takes the inner attack of the recipe's, but loss "
                f"{loss.label!r} is more than the cross-entropy on its images; it needs pgd-at, second-order or natural"
            )

    def start(self, training: TrainingContext, hooks: Sequence[TrainingHook]) -> TrainingStep:
        """Return the step at the begin of a training."""
        return InformationGainStep(self, training, hooks)

    def passes(self, loss: Loss) -> float:
        """Return those of the loss, and 3 for the clean images where lambda is not 0.

        At most: the inner attack is on one particle of n, and so takes 1/n of the passes that are counted for it.
        """
        return loss.passes + (STEP_PASSES if self.information else 0)


class InformationGainStep(TrainingStep):
    """The step in its running form. Its state is what the next particle that is attacked depends on."""

    def __init__(self, options: IGBNN, training: TrainingContext, hooks: Sequence[TrainingHook]) -> None:
        super().__init__(training, hooks)
        self.options, self.ensemble = options, options.particles_of(training.network)
        self.weights = [
            [weight for weight in member.parameters() if weight.requires_grad]
            for member in self.ensemble.members
        ]
        # Drawn on the host by its own numbers, so that no step waits for the device.
        draws = training.generator
        self.seed = int(torch.randint(2**62, (), generator=draws, device=draws.device))
        self.taken = 0  # steps

    def gradients(self, batch: Batch) -> Measured:
        """Leave phi in the particles' gradients."""
        attacked = _drawn(self.seed, self.taken, len(self.weights))
        self.taken += 1
        loss, logits = self._loss(batch, attacked)
        self._leave_directions(batch.share * loss, batch.share)
        self.penalise(batch)
        answer = log_mean_probability(logits).argmax(1)
        return Measured(batch.share * loss.detach(), (answer == batch.labels).sum())

    def _loss(self, batch: Batch, attacked: int) -> tuple[Tensor, Tensor]:
        """Return L, with its graph, and log-probabilities `[n, B, K]` of the attacked images, without."""
        images, labels, training, options = batch.images, batch.labels, self.training, self.options
        count = len(self.weights)
        with training.computing(images) as recipe:
            attack, changed = recipe.inner_attack, images
            if attack is not None:
                changed = attack.craft(self.ensemble.members[attacked], images, labels, training.generator)
            informed = options.information and count > 1
            clean = log_probabilities(self.ensemble.member_logits(images)) if informed else None
            logits = self.ensemble.member_logits(changed)
            loss = cross_entropy(logits.flatten(0, 1), labels.repeat(count))  # mean of particles and images
            loss = loss + cross_entropy(logits[attacked], labels)
        adversarial = log_probabilities(logits)
        if clean is not None:
            gained = mutual_information(adversarial) - mutual_information(clean)  # [B], of IG(x) - IG(x')
            loss = loss + options.information * (gained.abs() if options.absolute else gained).mean()
        return loss, adversarial.detach()

    def _leave_directions(self, loss: Tensor, share: float) -> None:
        """Put phi of this rank's share of L, and of the repulsion, into the gradients of the weights."""
        count = len(self.weights)
        flat = [weight for own in self.weights for weight in own]
        found = torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            particles = _stacked(flat, count)
            gradients = count * _stacked(found, count)
            phi = svgd_directions(
                particles, gradients, gamma=share * self.options.gamma, bandwidth=self.options.bandwidth
            )
            for own, direction in zip(self.weights, phi, strict=True):
                pieces = direction.split([weight.numel() for weight in own])
                for weight, piece in zip(own, pieces, strict=True):
                    weight.grad = torch.empty_like(weight).copy_(piece.view(weight.shape))

    def state(self) -> dict[str, Any]:
        """Return the seed of the particles that are attacked, and the number of steps."""
        return {"seed": self.seed, "taken": self.taken}

    def restore(self, state: dict[str, Any]) -> None:
        """Put them back."""
        self.seed, self.taken = int(state["seed"]), int(state["taken"])


def _drawn(seed: int, number: int, count: int) -> int:
    """Return a number below `count`, uniform over the numbers of steps."""
    digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
    return int.from_bytes(digest, "big") % count


def _stacked(tensors: Sequence[Tensor], count: int) -> Tensor:
    """Return the tensors of `count` particles, one particle after the other, as `[n, P]`."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).view(count, -1)


def log_probabilities(logits: Tensor) -> Tensor:
    """Return log-softmax over the last dimension, in float32 or higher."""
    return to_float32(logits).log_softmax(-1)


def log_mean_probability(log_p: Tensor) -> Tensor:
    """Return the log of the mean probability `[B, K]` of log-probabilities `[n, B, K]`."""
    return log_p.logsumexp(0) - math.log(len(log_p))


def mutual_information(log_p: Tensor) -> Tensor:
    """Return H[mean p] - mean H[p] `[B]`, in nats, of log-probabilities `[n, B, K]`: -IG, in 0..log min(n, K).

    As the mean divergence of the p_k from their mean, 1/n sum_k KL(p_k || mean p), which is the same number.
    """
    return (log_p.exp() * (log_p - log_mean_probability(log_p))).sum(2).mean(0)
