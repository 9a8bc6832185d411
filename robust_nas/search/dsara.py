"""DSARA's two-stage search (Ou et al., arXiv 2212.14049; form recovered from the official ARNAS code).

One step, on a batch (x, y) of the weights' half and (v, t) of the alphas' half:

    x' = attack(w, alpha; x, y)              v' = attack(w, alpha; v, t)
    stage 1:  g  = d/dalpha L(w, alpha; v', t)
    stage 2:  u1 = d/dalpha L(w, alpha; v, t),   u2 = lambda d/dalpha L(w, alpha; v', t)
              g  = gamma* u1 + (1 - gamma*) u2         (min-norm over all alphas at once; or u1 + u2)
    alpha <- Adam(alpha, g)
    w     <- SGD(w, d/dw L(w, alpha; x', y))           (adversarial in both stages)

Second order replaces w in the alpha gradients by the unrolled w' = w - eta (mu b + d/dw L(w; x', y) + wd w), with SGD's
momentum buffer b, and adds the term through w' by finite differences (Liu et al., 2019, eq. 7-8):

    d/dalpha L(w', alpha) - eta [d/dalpha L(w + r v) - d/dalpha L(w - r v)] / (2 r),   v = d/dw' L_val,  r = r0 / ||v||

Batch norm uses batch statistics throughout; only the weight step moves its running statistics.

With several ranks every loss and gradient above is summed over them, weighted by their shares of the batch, as soon as
it is taken: the min-norm point, the unrolled step and the finite difference are those of one rank with the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robust_nas.attacks.attacked_model import attack_mode
from robust_nas.distributed import ALONE, Ranks
from robust_nas.errors import ConfigError
from robust_nas.layers.batch_norm import local_statistics
from robust_nas.nets import Supernet
from robust_nas.search.min_norm import min_norm
from robust_nas.search.options import DSARA, WeightOptimiser
from robust_nas.training.loss import cross_entropy


class Batch(NamedTuple):
    """Images `[B, C, H, W]` in 0..1, the same images attacked, labels `[B]`; `share` of a batch split over ranks."""

    natural: Tensor
    adversarial: Tensor
    labels: Tensor
    share: float = 1.0


class AlphaStep(NamedTuple):
    """What an alpha step saw: flat gradients, losses and gamma; None where stage 1 has none."""

    gradient: Tensor
    natural: Tensor | None
    adversarial: Tensor
    loss_natural: Tensor | None
    loss_adversarial: Tensor
    gamma: Tensor | None


class DSARASearch:
    """Supernet, its two optimisers, and the two steps."""

    def __init__(self, supernet: Supernet, options: DSARA, ranks: Ranks = ALONE) -> None:
        """Raises `ConfigError` when the supernet is too shallow to hold every kind of cell of its space."""
        absent = supernet.alphas.keys() - {cell.kind for cell in supernet.cells}
        if absent:
            raise ConfigError(
                f"search.cells: got {len(supernet.cells)}; the supernet then has no {' and no '.join(sorted(absent))} "
                "cell, and its alphas would never be searched; more cells are needed"
            )
        self.supernet = supernet
        self.options = options
        self.ranks = ranks
        self.folded: nn.Module | None = None  # the copy that attacks run on, and the tensors it was made of
        self.folded_at: list[Any] = []
        self.weights = supernet.weights()
        self.alphas = list(supernet.alphas.values())
        w, a = options.weights, options.alphas
        self.weight_optimiser = torch.optim.SGD(
            self.weights, w.learning_rate, momentum=w.momentum, weight_decay=w.weight_decay
        )
        self.alpha_optimiser = torch.optim.Adam(
            self.alphas, a.learning_rate, betas=a.betas, weight_decay=a.weight_decay
        )

    def attack(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Adversarial images against the present supernet, by the strategy's inner attack.

        A fused supernet in eval mode is attacked through its folded copy, whatever the attack's `fold` says.
        """
        attack, target = self.options.attack, self._folded()
        if target is not None:
            attack = attack.model_copy(update={"fold": False})  # it is folded already
        with self._autocast(images):
            return attack.craft(target or self.supernet, images, labels, generator)

    def _folded(self) -> nn.Module | None:
        """The folded copy of the supernet as it stands; made anew when a tensor of it has changed."""
        if self.options.attack.bn != "eval":
            return None
        tensors = [*self.supernet.parameters(), *self.supernet.buffers()]
        state: list[Any] = [(id(tensor), tensor._version, tensor.dtype, tensor.device) for tensor in tensors]
        if state != self.folded_at:
            self.folded, self.folded_at = self.supernet.folded(), state
        return self.folded

    def alpha_step(self, stage: int, alphas_batch: Batch, weights_batch: Batch) -> AlphaStep:
        """Moves the alphas; `weights_batch` is used by the second order alone."""
        step = self.alpha_gradient(stage, alphas_batch, weights_batch)
        pieces = torch.split(step.gradient, [alpha.numel() for alpha in self.alphas])
        for alpha, piece in zip(self.alphas, pieces, strict=True):
            alpha.grad = piece.view_as(alpha)
        self.alpha_optimiser.step()
        self.alpha_optimiser.zero_grad()
        return step

    def alpha_gradient(self, stage: int, alphas_batch: Batch, weights_batch: Batch) -> AlphaStep:
        """The gradient that the alphas descend in `stage` (1 or 2)."""
        images = (
            [alphas_batch.adversarial] if stage == 1 else [alphas_batch.natural, alphas_batch.adversarial]
        )
        with attack_mode(self.supernet, "batch"):
            if self.options.order == 1:
                pairs = [self._loss_gradient(x, alphas_batch, self.alphas) for x in images]
                found = [(loss, flatten(gradient)) for loss, gradient in pairs]
            else:
                found = self._second_order(images, alphas_batch, weights_batch)
        loss_adversarial, u2 = found[-1]
        u2 = self.options.adversarial_weight * u2 if stage == 2 else u2
        if stage == 1:
            return AlphaStep(u2, None, u2, None, loss_adversarial, None)
        loss_natural, u1 = found[0]
        if self.options.combine == "sum":
            return AlphaStep(u1 + u2, u1, u2, loss_natural, loss_adversarial, None)
        gamma, gradient = min_norm(u1, u2)
        return AlphaStep(gradient, u1, u2, loss_natural, loss_adversarial, gamma)

    def weight_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Moves the weights on adversarial images; returns the loss and the logits `[B, K]` of this rank."""
        self.supernet.train()
        with self._autocast(batch.adversarial):
            logits = self.supernet(batch.adversarial)
        loss = batch.share * cross_entropy(logits, batch.labels)
        loss, *gradients = self.ranks.all_reduce_sum(
            [loss.detach(), *torch.autograd.grad(loss, self.weights)]
        )
        self.ranks.all_reduce_mean(local_statistics(self.supernet), batch.share)
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        torch.nn.utils.clip_grad_norm_(self.weights, self.options.weights.clip_norm)
        self.weight_optimiser.step()
        self.weight_optimiser.zero_grad()
        return loss, logits.detach()

    def _loss_gradient(
        self, images: Tensor, batch: Batch, parameters: list[nn.Parameter]
    ) -> tuple[Tensor, list[Tensor]]:
        """Cross-entropy of one of the batch's `images` and its gradient for some parameters, over all ranks."""
        with requiring_grad(parameters), self._autocast(images):
            loss = batch.share * cross_entropy(self.supernet(images), batch.labels)
            loss, *gradients = self.ranks.all_reduce_sum(
                [loss.detach(), *torch.autograd.grad(loss, parameters)]
            )
            return loss, gradients

    def _second_order(
        self, images: list[Tensor], alphas_batch: Batch, batch: Batch
    ) -> list[tuple[Tensor, Tensor]]:
        """Loss and flat alpha gradient at the unrolled weights for each of `images`; w' is computed once."""
        learning_rate = self.weight_optimiser.param_groups[0]["lr"]
        _, gradients = self._loss_gradient(batch.adversarial, batch, self.weights)
        original = [weight.detach().clone() for weight in self.weights]
        step = self._sgd_direction(gradients)

        def move(direction: list[Tensor], scale: float | Tensor) -> None:
            with torch.no_grad():
                for weight, start, change in zip(self.weights, original, direction, strict=True):
                    weight.copy_(start + scale * change)

        def alphas_at(direction: list[Tensor], scale: Tensor) -> Tensor:
            move(direction, scale)
            return flatten(self._loss_gradient(batch.adversarial, batch, self.alphas)[1])

        result = []
        try:
            for x in images:
                move(step, -learning_rate)
                loss, both = self._loss_gradient(x, alphas_batch, [*self.alphas, *self.weights])
                direct, v = flatten(both[: len(self.alphas)]), both[len(self.alphas) :]
                norm = flatten(v).norm()
                r = self.options.finite_difference / norm.clamp_min(torch.finfo(norm.dtype).tiny)
                mixed = (alphas_at(v, r) - alphas_at(v, -r)) / (2 * r)
                result.append((loss, direct - learning_rate * mixed))
        finally:
            with torch.no_grad():
                for weight, start in zip(self.weights, original, strict=True):
                    weight.copy_(start)
        return result

    def _sgd_direction(self, gradients: list[Tensor]) -> list[Tensor]:
        """SGD's next step, mu b + gradient + wd w, but for the learning rate and clipping."""
        options: WeightOptimiser = self.options.weights
        direction = []
        for weight, gradient in zip(self.weights, gradients, strict=True):
            buffer = self.weight_optimiser.state.get(weight, {}).get("momentum_buffer")
            moved = gradient + options.weight_decay * weight.detach()
            direction.append(moved if buffer is None else moved + options.momentum * buffer)
        return direction

    def _autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, torch.bfloat16, enabled=self.options.precision == "bf16")


def flatten(tensors: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """One vector of all entries."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@contextmanager
def requiring_grad(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Asks for the gradients of these parameters inside, and not outside."""
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
