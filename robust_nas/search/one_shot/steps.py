"""The state of a one-shot search and what its steps are made of: attack, losses over all ranks, both optimisers.

With several ranks every loss and gradient is summed over them, weighted by their shares of the batch, as soon as it is
taken. Batch norm uses batch statistics; only the weight step moves its running statistics. Attacks work on a folded
copy of the supernet, which is renewed after every change of it: whoever changes it calls `mark_changed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from robust_nas.attacks import Attack, attack_mode
from robust_nas.attacks.batch_generator import BatchGenerator
from robust_nas.attacks.folding import same_logits
from robust_nas.distributed import ALONE, Ranks
from robust_nas.layers.batch_norm import local_statistics
from robust_nas.search.one_shot.batch import Batch, flatten
from robust_nas.search.one_shot.optimisers import AlphaOptimiser, WeightOptimiser
from robust_nas.spaces import CellSpace
from robust_nas.training.loss import LossValue, cross_entropy

LOSS = "search.weights.loss"


class Recipe(Protocol):
    """What the steps ask of a strategy (`strategy.py`)."""

    @property
    def attack(self) -> Attack:
        """Return the inner attack."""

    @property
    def weights(self) -> WeightOptimiser:
        """Return the optimiser of the weights."""

    @property
    def alphas(self) -> AlphaOptimiser:
        """Return the optimiser of the architecture parameters."""

    @property
    def precision(self) -> str:
        """Return the precision of forward and backward passes."""

    def stage(self, epoch: int) -> int:
        """Return the stage of an epoch."""

    def architecture_parameters(self, supernet: nn.Module) -> dict[str, nn.Parameter]:
        """Return the architecture parameters by name."""

    def folded(self, supernet: nn.Module) -> nn.Module | None:
        """Return a copy of the supernet for attacks, or None."""


class OneShotSearch:
    """A supernet in search: its weights, its architecture parameters (`alphas`, by name) and their optimisers."""

    def __init__(
        self,
        strategy: Recipe,
        supernet: nn.Module,
        space: CellSpace,
        ranks: Ranks = ALONE,
        generator: BatchGenerator | None = None,
    ) -> None:
        self.strategy, self.supernet, self.space, self.ranks = strategy, supernet, space, ranks
        self.generator = generator or BatchGenerator()  # of the draws of a loss of the weights
        if strategy.weights.loss is not None:
            strategy.weights.loss.refuse_ranks(ranks.count, LOSS)
            strategy.weights.loss.refuse_network(supernet, LOSS)
        self.epoch = 0
        self.alphas = strategy.architecture_parameters(supernet)
        chosen = {id(alpha) for alpha in self.alphas.values()}
        self.weights = [parameter for parameter in supernet.parameters() if id(parameter) not in chosen]
        self.weight_optimiser = strategy.weights.build(self.weights)
        self.alpha_optimiser = strategy.alphas.build(list(self.alphas.values()))
        self._folded: nn.Module | None = None
        self._folds: bool | None = None  # whether the first copy gave the supernet's logits
        self._changed = True  # since the folded copy was made

    @property
    def stage(self) -> int:
        """Return the stage of the present epoch."""
        return self.strategy.stage(self.epoch)

    def mark_changed(self) -> None:
        """Say that weights or alphas have changed, so that the next attack works on a new copy."""
        self._changed = True

    def attack(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return adversarial images against the present supernet, by the strategy's inner attack.

        A supernet that folds is attacked through its folded copy in eval mode, whatever the attack's `fold` says; one
        whose first copy gives other logits is attacked as the attack's `fold` says. An attack of second order works on
        the supernet itself.
        """
        attack = self.strategy.attack
        if attack.bn != "eval" or attack.twice_differentiated:
            self._folded = None
        elif self._changed:
            self._folded = self._copy(images)
        self._changed = False
        if self._folded is not None:
            attack = attack.model_copy(update={"fold": False})  # it is folded already
        with self.autocast(images):
            attacked = self.supernet if self._folded is None else self._folded
            return attack.craft(attacked, images, labels, generator)

    def _copy(self, images: Tensor) -> nn.Module | None:
        """Return the folded copy of now, or None; the first one is compared with the supernet on its batch."""
        own = None if self._folds is False else self.strategy.folded(self.supernet)
        if own is not None and self._folds is None:
            with attack_mode(self.supernet):
                self._folds = same_logits(own, self.supernet, images)
        return own if self._folds else None

    def alpha_loss(self, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss of one of the batch's `images` and its flat gradient for the alphas.

        Batch norm takes the statistics of the batch and keeps its running ones as they are.
        """
        with attack_mode(self.supernet, "batch"):
            loss, gradient = self.loss_gradient(images, batch, list(self.alphas.values()))
        return loss, flatten(gradient)

    def loss_gradient(
        self, images: Tensor, batch: Batch, parameters: list[nn.Parameter]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the cross-entropy of one of the batch's `images` and its gradient for some parameters.

        Both are over all ranks. The supernet is in the mode in which the caller put it.
        """
        with requiring_grad(parameters), self.autocast(images):
            loss = batch.share * cross_entropy(self.supernet(images), batch.labels)
            found = torch.autograd.grad(loss, parameters, materialize_grads=True)  # zeros outside a sample
            loss, *gradients = self.ranks.all_reduce_sum([loss.detach(), *found])
            return loss, gradients

    def alpha_step(self, gradient: Tensor) -> None:
        """Move the alphas by Adam along a flat gradient."""
        alphas = list(self.alphas.values())
        pieces = torch.split(gradient, [alpha.numel() for alpha in alphas])
        for alpha, piece in zip(alphas, pieces, strict=True):
            alpha.grad = piece.view_as(alpha)
        self.alpha_optimiser.step()
        self.alpha_optimiser.zero_grad()
        self.mark_changed()

    def weight_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Move the weights on adversarial images, or by their own loss; return the loss and this rank's logits."""
        self.supernet.train()
        value = self._weight_loss(batch)
        loss, logits = batch.share * value.loss, value.logits
        found = torch.autograd.grad(loss, self.weights, allow_unused=True)
        # Weights outside a sample have no gradient: neither momentum nor weight decay moves them.
        moved = [pair for pair in zip(self.weights, found, strict=True) if pair[1] is not None]
        loss, *gradients = self.ranks.all_reduce_sum([loss.detach(), *(gradient for _, gradient in moved)])
        self.ranks.all_reduce_mean(local_statistics(self.supernet), batch.share)
        for (weight, _), gradient in zip(moved, gradients, strict=True):
            weight.grad = gradient
        torch.nn.utils.clip_grad_norm_(self.weights, self.strategy.weights.clip_norm)
        self.weight_optimiser.step()
        self.weight_optimiser.zero_grad()
        self.mark_changed()
        return loss, logits.detach()

    def _weight_loss(self, batch: Batch) -> LossValue:
        """Return the loss of the weights on this rank's rows."""
        own = self.strategy.weights.loss
        with self.autocast(batch.natural):
            if own is not None:
                whole = batch.whole or len(batch.labels)
                self.generator.whole, self.generator.rows = whole, self.ranks.rows(whole)
                return own(self.supernet, batch.natural, batch.labels, self.generator)
            logits = self.supernet(batch.adversarial)
        return LossValue(cross_entropy(logits, batch.labels), logits)

    def autocast(self, images: Tensor) -> torch.autocast:
        """Return the precision of the strategy's forward passes."""
        return torch.autocast(images.device.type, torch.bfloat16, enabled=self.strategy.precision == "bf16")


@contextmanager
def requiring_grad(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Ask for the gradients of these parameters inside; outside, they are as they were."""
    before = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, required in zip(parameters, before, strict=True):
            parameter.requires_grad_(required)
