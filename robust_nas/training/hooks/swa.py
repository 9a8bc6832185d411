"""Stochastic weight averaging (Izmailov et al., UAI 2018): the mean of the weights at the ends of the last epochs.

    w_n = w_{n-1} + (w - w_{n-1}) / n    at the end of every epoch from `from_epoch` on

The mean is what is validated and kept; the training goes on from w. Its batch norms get new running statistics, the
mean over the batches of the training images, not augmented, in a fixed order: the same for every resume. Under attack
it flattens robust overfitting (Chen et al., ICLR 2021). The exponential average is `training.ema`; both is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robust_nas.config import Count, CountOrZero
from robust_nas.data.order import batches
from robust_nas.errors import ConfigError
from robust_nas.lazy import torch
from robust_nas.training.context import TrainingContext
from robust_nas.training.hook import HookOptions, Recipe, TrainingHook
from robust_nas.training.modes import in_eval_mode

if TYPE_CHECKING:
    from torch import Tensor


class SWA(HookOptions):
    """The mean of the weights of every epoch from `from_epoch` on, counted from 0 (Izmailov et al., 2018)."""

    reads_weights: ClassVar[bool] = True

    name: Literal["swa"] = "swa"
    from_epoch: CountOrZero | None = None  # None: at three quarters of the epochs, as published
    images: Count | None = None  # at most, of the training, by which batch norms are renewed; None: all

    def first_epoch(self, epochs: int) -> int:
        """Return the first epoch that is averaged."""
        return epochs * 3 // 4 if self.from_epoch is None else self.from_epoch

    def refuse(self, recipe: Recipe) -> None:
        """Raise `ValueError` where nothing would be averaged, or another average is the model."""
        if self.first_epoch(recipe.epochs) >= recipe.epochs:
            raise ValueError(
                f"hook 'swa': from_epoch is {self.from_epoch}, counted from 0, but the training has "
                f"{recipe.epochs} epochs; nothing would be averaged"
            )
        if recipe.ema is not None:
            raise ValueError(
                f"hook 'swa' and ema {recipe.ema} both average the weights; leave one of them out"
            )

    def start(self, training: TrainingContext) -> TrainingHook:
        """Return the hook at the begin of a training."""
        return WeightMean(self, training)

    def passes(self, recipe: Recipe) -> float:
        """Return the share of epochs in which the mean is validated: its statistics take a pass of every image.

        At most: with fewer `images`, fewer.
        """
        first = self.first_epoch(recipe.epochs)
        return sum(epoch >= first for epoch in recipe.validated_epochs) / recipe.epochs


class WeightMean(TrainingHook):
    """The hook in its running form."""

    def __init__(self, options: SWA, training: TrainingContext) -> None:
        self.options, self.training = options, training
        self.first = options.first_epoch(training.epochs)
        self.weights = dict(training.network.named_parameters())
        self.mean: dict[str, Tensor] = {}
        self.count = 0

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Add the weights of an epoch to the mean. Return the number of epochs in it."""
        if epoch >= self.first:
            self.count += 1
            if not self.mean:
                self.mean = {name: weight.detach().clone() for name, weight in self.weights.items()}
            for name, weight in self.weights.items():
                self.mean[name].lerp_(weight.detach(), 1 / self.count)
        return {"swa_epochs": self.count}

    def applied(self) -> AbstractContextManager[None]:
        """Return a context in which the network has the mean and its batch statistics."""
        return self._as_mean() if self.count else contextlib.nullcontext()

    @contextlib.contextmanager
    def _as_mean(self) -> Iterator[None]:
        network = self.training.network
        held = [*network.parameters(), *network.buffers()]
        before = [tensor.detach().clone() for tensor in held]
        try:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(self.mean[name])
            renew_statistics(self.training, self.options.images)
            yield
        finally:
            with torch.no_grad():
                for tensor, kept in zip(held, before, strict=True):
                    tensor.copy_(kept)

    def state(self) -> dict[str, Any]:
        """Return the mean and the number of epochs in it."""
        return {"count": self.count, "mean": self.mean}

    def restore(self, state: dict[str, Any]) -> None:
        """Put them back."""
        found = state["mean"]
        if found and {name: t.shape for name, t in found.items()} != {
            n: w.shape for n, w in self.weights.items()
        }:
            raise ValueError("the averaged weights are of another network")
        self.count = int(state["count"])
        # In the memory format of the weights, which decides how kernels round.
        self.mean = {
            name: torch.empty_like(self.weights[name], requires_grad=False).copy_(tensor)
            for name, tensor in found.items()
        }


def renew_statistics(training: TrainingContext, most: int | None) -> None:
    """Replace the running statistics of all batch norms by the mean over batches of the training images.

    With several processes each takes its rows, as in a step. Every other module is in eval mode.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    from robust_nas.layers.batch_norm import local_statistics

    network, images, ranks = training.network, training.images, training.ranks
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms:
        return
    if images is None:
        raise ConfigError("training.hooks: swa needs the training images to renew batch statistics; got none")
    momenta = [norm.momentum for norm in norms]
    order = batches(len(images), training.batch_size, seed=0, epoch=0)
    chosen = order if most is None else order[: max(1, most // training.batch_size)]
    try:
        with in_eval_mode(network), torch.no_grad():
            for norm in norms:
                norm.train()
                norm.momentum = None  # the mean of all batches
                norm.reset_running_stats()
            for indices in chosen:
                x = images.float(indices)[ranks.rows(len(indices))].to(next(network.parameters()).dtype)
                network(x.contiguous(memory_format=torch.channels_last))
                ranks.all_reduce_mean(local_statistics(network), ranks.share(len(indices)))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
