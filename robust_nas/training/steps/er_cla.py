"""ER-CLA-style training: a classifier whose latents are regularised by a critic (after Li et al., arXiv 1811.07950).

    critic    max_D   E_{n ~ N(0, sigma^2 I)} -D(n) + mean_b D(e(x_b)),     then all its weights to -clip..clip
    network   min_f   L(f, x, y) + weight mean_b D(e(x_b)),                 f = h(e(x))

e is the network up to `layer`, h what follows, L the loss of the recipe. D is high for latents and low for the prior,
so that the network draws its latents to the prior: a Wasserstein GAN in latent space. One critic step, then one of the
network, by a pass for e(x) alone, in training mode. D: four hidden layers of `critic_width`, ReLU, log-sigmoid.

The paper's text was not available. From the code of the statisticians' review: the two objectives, D, sigma 1, clip
0.01, weight 0.1 (MNIST 0.0005), Adam at half of 5e-5 for the critic, halved every 30 epochs. Ours: a network of the
toolkit in the place of its encoder and its perceptron, whose latents have as many numbers as the layer has (published:
4 for MNIST, 16 for CIFAR-10); one optimiser, the recipe's, for encoder and classifier (published: Adam at 5e-5 and
2.5e-6) and one gradient for both terms (published: two steps, of which the second also takes the first one's gradient
again); attacked images by a loss that attacks, from the first epoch on (published: half of the loss from epoch 200 on,
of 30 by default). Lambda of the critic's loss, published as 1, decides nothing under Adam.

B batch, d numbers of a latent.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robust_nas.checkpoints import restore_optimiser
from robust_nas.config import Count, NonNegative, Positive
from robust_nas.lazy import F, torch
from robust_nas.training.context import Batch, TrainingContext
from robust_nas.training.hook import TrainingHook
from robust_nas.training.loss import STEP_PASSES, Loss, to_float32
from robust_nas.training.step import Measured, StepOptions, TrainingStep

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.optim import Adam

    from robust_nas.spaces import Architecture

HIDDEN = 4  # layers of the critic


class ERCLA(StepOptions):
    """Latents drawn to N(0, sigma^2 I) by a critic, next to any loss (ER-CLA-style).

    `layer`: where the latents are taken, by default the input of the classifier; they can be drawn to the prior only
    where they have both signs. `weight`: of the critic's mean in the loss.
    """

    needs_end: ClassVar[bool] = False

    name: Literal["er-cla"] = "er-cla"
    layer: str | None = None  # module whose outputs are the latents; None: the input of the classifier
    weight: NonNegative = 0.1  # of the critic's mean in the loss
    sigma: Positive = 1.0  # standard deviation of the prior
    clip: Positive = 0.01  # largest weight of the critic
    critic_width: Count = 512  # units of the critic's hidden layers
    critic_rate: Positive = 2.5e-5  # learning rate of the critic
    halve_every: Count = 30  # epochs after which the critic's rate is halved

    def refuse_architecture(self, architecture: Architecture | type[Architecture]) -> None:
        """Raise `ConfigError` for a layer that the network does not have; of a family nothing is known."""
        if self.layer is None or isinstance(architecture, type):
            return
        from robust_nas.layers.cuts import Cut
        from robust_nas.nets import build_network

        with torch.device("meta"):
            Cut(build_network(architecture), self.layer, "training.step.layer")

    def start(self, training: TrainingContext, hooks: Sequence[TrainingHook]) -> TrainingStep:
        """Return the step at the begin of a training."""
        return CriticStep(self, training, hooks)

    def passes(self, loss: Loss) -> float:
        """Return those of the loss, and 3 for the latents; the critic's are not counted."""
        return loss.passes + (STEP_PASSES if self.weight else 0)


class CriticStep(TrainingStep):
    """The step in its running form."""

    def __init__(self, options: ERCLA, training: TrainingContext, hooks: Sequence[TrainingHook]) -> None:
        from robust_nas.layers.cuts import Cut

        super().__init__(training, hooks)
        self.options = options
        self.cut = Cut(training.network, options.layer, "training.step.layer")
        self.critic: Critic | None = None  # until the first batch says how many numbers a latent has

    def gradients(self, batch: Batch) -> Measured:
        """Move the critic, and leave the gradients of the loss with the critic's mean in the network's parameters."""
        training, weight = self.training, self.options.weight
        latent = self._latent(batch.images) if weight else None
        value = training.value(batch.images, batch.labels)
        loss = value.loss
        if latent is not None:
            if self.critic is None:
                self.critic = Critic(self.options, latent.shape[1], training.generator, latent)
            self.critic.step(latent.detach(), training)
            loss = loss + weight * self.critic(latent).mean()
        measured = self.backward(loss, batch)
        return Measured(measured, (value.logits.argmax(1) == batch.labels).sum())

    def _latent(self, images: Tensor) -> Tensor:
        """Return e(x) `[B, d]` with its graph."""
        training, seen = self.training, []

        def record(z: Tensor) -> Tensor:
            seen.append(z)
            return z

        with (
            torch.autocast(images.device.type, torch.bfloat16, enabled=training.bf16),
            self.cut.changed(record),
        ):
            training.network(images)
        return to_float32(seen[-1]).flatten(1)

    def state(self) -> dict[str, Any]:
        """Return the critic; nothing before the first step."""
        return {} if self.critic is None else {"critic": self.critic.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put the critic back."""
        if "critic" in state:
            found = state["critic"]
            like = next(self.training.network.parameters()).detach()
            like = to_float32(like)
            numbers = int(found["weights"][0].shape[1])
            draws = torch.Generator(self.training.generator.device)  # its weights are overwritten
            self.critic = Critic(self.options, numbers, draws, like)
            self.critic.restore(found)


class Critic:
    """D, its optimiser and the number of its steps; weights are float32 or as the latents are, on their device."""

    def __init__(self, options: ERCLA, numbers: int, generator: Generator, like: Tensor) -> None:
        self.options, self.steps = options, 0
        sizes = [numbers, *[options.critic_width] * HIDDEN, 1]
        self.weights: list[Tensor] = []  # weight [out, in] and bias [out] of every layer, in turn
        for inputs, outputs in pairwise(sizes):
            for shape in ((outputs, inputs), (outputs,)):  # as torch starts a linear layer
                drawn = torch.rand(shape, generator=generator, device=generator.device, dtype=like.dtype)
                bounded = (2 * drawn - 1) / inputs**0.5
                self.weights.append(bounded.to(like.device).requires_grad_())
        self.optimiser: Adam = torch.optim.Adam(self.weights, options.critic_rate)

    def __call__(self, z: Tensor) -> Tensor:
        """Return D(z) `[B]`; gradients go to z alone."""
        return self._values(z, [weight.detach() for weight in self.weights])

    def _values(self, z: Tensor, weights: Sequence[Tensor]) -> Tensor:
        layers = list(zip(weights[::2], weights[1::2], strict=True))
        with torch.autocast(z.device.type, enabled=False):
            for weight, bias in layers[:-1]:
                z = F.linear(z, weight, bias).relu()
            return F.logsigmoid(F.linear(z, *layers[-1])).squeeze(1)

    def step(self, latent: Tensor, training: TrainingContext) -> None:
        """Take one step toward telling latents `[B, d]` of this rank from the prior, the same on every rank."""
        options, ranks, generator = self.options, training.ranks, training.generator
        whole = len(latent) if ranks.count == 1 else training.batch_size
        prior = torch.randn(
            whole, latent.shape[1], generator=generator, device=generator.device, dtype=latent.dtype
        )
        prior = options.sigma * prior[ranks.rows(whole)].to(latent.device)
        distance = self._values(prior, self.weights).mean() - self._values(latent, self.weights).mean()
        gradients = torch.autograd.grad(ranks.share(whole) * distance, self.weights)
        for weight, gradient in zip(self.weights, ranks.all_reduce_sum([*gradients]), strict=True):
            weight.grad = gradient
        rate = options.critic_rate * 0.5 ** (self.steps // training.steps // options.halve_every)
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()
        with torch.no_grad():
            for weight in self.weights:
                weight.clamp_(-options.clip, options.clip)
                weight.grad = None
        self.steps += 1

    def state(self) -> dict[str, Any]:
        """Return weights, optimiser and position."""
        return {
            "weights": [weight.detach() for weight in self.weights],
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put them back. Raises `ValueError` for those of another critic."""
        shapes = [[tuple(weight.shape) for weight in each] for each in (state["weights"], self.weights)]
        if shapes[0] != shapes[1]:
            raise ValueError("the critic of the checkpoint has other layers")
        with torch.no_grad():
            for weight, kept in zip(self.weights, state["weights"], strict=True):
                weight.copy_(kept)
        restore_optimiser(
            self.optimiser, copy.deepcopy(state["optimiser"])
        )  # which takes tensors as they are
        self.steps = int(state["steps"])
