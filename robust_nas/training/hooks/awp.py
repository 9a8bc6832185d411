"""Adversarial weight perturbation (Wu, Xia and Wang, NeurIPS 2020): the step is taken against the worst nearby weights.

    v_l = gamma ||w_l|| g_l / ||g_l||,   g = grad_w L(f_w, x, y)     of every weight with two or more dimensions
    the gradient of the step is that at w + v; the optimiser moves w

As in the official code, the direction is one ascent step, scaled per layer, so that ||v_l|| = gamma ||w_l||; biases,
batch norms and what a network exempts from weight decay are left alone, and running statistics follow the step alone.
Two choices of ours: L is the whole loss of the recipe with its inner attack, and the attack runs again on the perturbed
weights (the official code keeps the images of the first attack, which takes less time); and w is put back before the
optimiser's step, so that weight decay sees w, not w + v. Both attacks make the same draws: gamma = 0 is training
without the hook.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robust_nas.config import CountOrZero, NonNegative
from robust_nas.lazy import torch
from robust_nas.training.context import Batch, TrainingContext
from robust_nas.training.hook import HookOptions, Recipe, TrainingHook
from robust_nas.training.parameters import undecayed

if TYPE_CHECKING:
    from torch import Tensor, nn

SMALL = 1e-20  # in the denominator, as in the official code


class AWP(HookOptions):
    """Adversarial weight perturbation of relative size `gamma` from epoch `warmup_epochs` on (Wu et al., 2020).

    The published gamma is 0.01 for adversarial training (warm-up 0) and 0.005 for TRADES (warm-up 10).
    """

    needs_end: ClassVar[bool] = False

    name: Literal["awp"] = "awp"
    gamma: NonNegative = 0.01  # size of the perturbation relative to a layer's weights
    warmup_epochs: CountOrZero = 0  # epochs without it

    def start(self, training: TrainingContext) -> TrainingHook:
        """Return the hook at the begin of a training."""
        return WeightPerturbation(self, training)

    def passes(self, recipe: Recipe) -> float:
        """Return the passes of the directions: one more evaluation of the loss in every step behind the warm-up."""
        epochs = max(0, recipe.epochs - self.warmup_epochs)
        return recipe.batch_uses * recipe.loss.passes * epochs / recipe.epochs


class WeightPerturbation(TrainingHook):
    """The hook in its running form."""

    def __init__(self, options: AWP, training: TrainingContext) -> None:
        self.options, self.training = options, training
        left_alone = {
            id(parameter) for parameter in undecayed(training.network)
        }  # such as a posterior's widths
        self.weights = [
            parameter
            for name, parameter in training.network.named_parameters()
            if parameter.requires_grad
            and parameter.dim() > 1
            and name.endswith("weight")
            and id(parameter) not in left_alone
        ]
        self.unperturbed: list[Tensor] = []
        self.epoch = 0

    def before_step(self, batch: Batch) -> None:
        """Move the weights to w + v."""
        if self.epoch < self.options.warmup_epochs:
            return
        gradients = self._ascent(batch)
        self.unperturbed = [weight.detach().clone() for weight in self.weights]
        with torch.no_grad():
            for weight, gradient in zip(self.weights, gradients, strict=True):
                weight.add_(self.options.gamma * weight.norm() / (gradient.norm() + SMALL) * gradient)

    def _ascent(self, batch: Batch) -> list[Tensor]:
        """Return the gradients of the whole batch's loss; draws and batch statistics are as if nothing had run."""
        training = self.training
        with _untouched(training):
            loss = batch.share * training.value(batch.images, batch.labels).loss
            found = torch.autograd.grad(loss, self.weights, allow_unused=True)
        own = [
            torch.zeros_like(weight) if gradient is None else gradient
            for weight, gradient in zip(self.weights, found, strict=True)
        ]
        return training.ranks.all_reduce_sum(own)

    def after_backward(self) -> None:
        """Move the weights back to w, to the bit."""
        with torch.no_grad():
            for weight, unperturbed in zip(self.weights, self.unperturbed, strict=False):
                weight.copy_(unperturbed)
        self.unperturbed = []

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Count the epoch."""
        self.epoch = epoch + 1
        return {}

    def state(self) -> dict[str, Any]:
        """Return the epoch."""
        return {"epoch": self.epoch}

    def restore(self, state: dict[str, Any]) -> None:
        """Put the epoch back."""
        self.epoch = int(state["epoch"])


@contextlib.contextmanager
def _untouched(training: TrainingContext) -> Iterator[nn.Module]:
    """Put the generator and the network's buffers back on leaving."""
    network, draws = training.network, training.generator.get_state()
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield network
    finally:
        training.generator.set_state(draws)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
