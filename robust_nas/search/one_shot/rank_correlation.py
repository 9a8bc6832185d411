"""Whether a supernet's scores rank architectures: Kendall's tau with short trainings of a few that are sampled.

    score   minus the mean cross-entropy of the network with inherited weights on attacked images of the alphas' half
    truth   robust validation accuracy after a short training from scratch, by the run's recipe

Images, attack and inherited networks are those of `fitness.py`, sizes those of the search; the training is that of the
evaluator `short-training` with its defaults. The interval is a bootstrap over the architectures
(`statistics/rank_agreement.py`); with few of them it is wide.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from robust_nas.attacks import attack_mode
from robust_nas.lazy import torch
from robust_nas.search.evaluators.short_training import ShortTraining
from robust_nas.search.one_shot.fitness import FitnessImages, fitness_attack, inherited_network
from robust_nas.search.strategy import SearchContext
from robust_nas.spaces import CellArchitecture, sample
from robust_nas.statistics.rank_agreement import LEAST, agreements

if TYPE_CHECKING:
    from torch import nn

    from robust_nas.search.one_shot.steps import OneShotSearch
    from robust_nas.search.one_shot.strategy import OneShotStrategy


def rank_correlation(
    strategy: OneShotStrategy, search: OneShotSearch, context: SearchContext, images: FitnessImages
) -> dict[str, Any] | None:
    """Return the networks compared, Kendall's tau and its 95 % interval (None where it has none).

    None where the strategy has no inherited networks, where fewer than three of the sampled networks have a score and a
    training that did not diverge, and where all scores or all accuracies are equal.
    """
    pairs = []
    evaluator = ShortTraining()
    sampled = sampled_architectures(strategy, context)
    for number, architecture in enumerate(sampled):
        context.progress("search: short trainings", number, len(sampled), architecture.name)
        network = inherited_network(strategy, search, architecture, images)
        if network is None:
            return None
        loss = adversarial_loss(network, strategy, images)
        accuracy = evaluator.evaluate(architecture, context).score
        if accuracy is not None and math.isfinite(accuracy) and math.isfinite(loss):
            pairs.append((-loss, accuracy))
    context.progress("search: short trainings", len(sampled), len(sampled))
    if len(pairs) < LEAST:
        return None
    scores, accuracies = np.array(pairs).T
    found = agreements({"inherited": scores}, accuracies, "inherited")["inherited"].measures["kendall"]
    if found.value is None:
        return None
    interval = None if found.low is None or found.high is None else [found.low, found.high]
    return {"networks": len(pairs), "kendall": found.value, "interval": interval}


def sampled_architectures(strategy: OneShotStrategy, context: SearchContext) -> list[CellArchitecture]:
    """Return `short_trainings` random architectures at the search's size, by the search's seed."""
    size = strategy.size(context.space)
    seeds = np.random.default_rng([context.seed, 3]).integers(2**32, size=strategy.short_trainings)
    return [sample(context.space, seed, size=size) for seed in seeds.tolist()]


def adversarial_loss(network: nn.Module, strategy: OneShotStrategy, images: FitnessImages) -> float:
    """Return the mean cross-entropy of a network in eval mode on attacked images."""
    from robust_nas.evaluation.accuracy import batch_of

    attack, generator, judged = fitness_attack(strategy.attack), images.generator(), images.judged
    losses = []
    for indices in torch.split(torch.arange(len(judged)), images.batch_size):
        x, labels = batch_of(judged, indices)
        x = x.contiguous(memory_format=torch.channels_last)
        adversarial = attack(network, x, labels, generator)
        with torch.no_grad(), attack_mode(network):
            loss = torch.nn.functional.cross_entropy(network(adversarial).float(), labels, reduction="sum")
        losses.append(float(loss))
    return sum(losses) / len(judged)
