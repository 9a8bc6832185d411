"""Measure whether a supernet is fit to decide: its accuracies at the end, and those of the network derived from it.

On N random images of the alphas' half, which moved no weight of the supernet, after the last step:

    supernet   clean and robust accuracy in eval mode, with its running statistics and final edge weights
    derived    the same of the derived architecture's network, of copies of the supernet's modules (`nets/inherited.py`)
    dropped    1 - sum of the weights of the kept (edge, operation) / sum of all weights of a kind; mean over the kinds

The modules of the derived network see inputs of another scale than in the supernet, where a node adds all operations of
all edges. So its batch norm statistics are estimated again, on clean images of the weights' half, without gradients.
Robust means correct under PGD-10 from a random start, best iterate, in the norm and eps of the search's attack (our
choice: ten steps whatever the search takes, so that searches compare).

All is a function of the checkpoint after the last step, with draws of its own: a search that resumes there measures the
same, and nothing of the search changes. With several ranks each measures the same images with the same draws.

`search.short_trainings` adds the rank correlation of inherited scores with short trainings (`rank_correlation.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from robust_nas.attacks import PGD, Attack, attack_mode
from robust_nas.lazy import torch
from robust_nas.spaces import CellArchitecture, CellSpace

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from robust_nas.data import Images
    from robust_nas.search.one_shot.steps import OneShotSearch
    from robust_nas.search.one_shot.strategy import OneShotStrategy

IMAGES = 256  # that are judged; all of the half where it has fewer
CALIBRATION = 512  # for the batch norm statistics of an inherited network
STEPS = 10  # of the attack


class FitnessImages(NamedTuple):
    """What is judged (of the alphas' half), and what batch norm statistics come from (of the weights' half)."""

    judged: Images
    calibration: Images
    seed: int
    batch_size: int

    @classmethod
    def of(cls, weights: Images, alphas: Images, seed: int, batch_size: int) -> FitnessImages:
        """Return random images of both halves, by the search's seed."""
        return cls(alphas.draw(IMAGES, seed), weights.draw(CALIBRATION, seed), seed, batch_size)

    def generator(self) -> Generator:
        """Return a generator at the start of the draws that every measurement gets."""
        return torch.Generator(self.judged.pixels.device).manual_seed(self.seed)


def measure_fitness(
    strategy: OneShotStrategy,
    search: OneShotSearch,
    images: FitnessImages,
    architecture: CellArchitecture,
    edge_weights: Mapping[str, Tensor],
    classes: int,
) -> dict[str, Any]:
    """Return the key `fitness` of `result.json`, but for the rank correlation.

    `architecture` is the derived one, `edge_weights` are `[E, O]` per kind. `derived` is None where the strategy has no
    network with inherited weights.
    """
    from robust_nas.evaluation.accuracy import chance_of

    attack = fitness_attack(strategy.attack)
    folded = _folded(strategy, search.supernet, images.judged)
    network = inherited_network(strategy, search, architecture, images)
    return {
        "images": len(images.judged),
        "classes": classes,
        "chance": chance_of(images.judged.labels, classes),
        "attack": f"{attack.name}, {attack.steps} steps, {attack.norm} eps {attack.eps:.4g}",
        "supernet": _accuracies(search.supernet, attack, images, folded),
        "derived": None if network is None else _accuracies(network, attack, images),
        "dropped_weight": dropped_weight(search.space, architecture, edge_weights),
        "rank_correlation": None,
    }


def fitness_attack(attack: Attack) -> PGD:
    """Return PGD-10 with the threat model of the search's attack."""
    return PGD(norm=attack.norm, eps=attack.radius, steps=STEPS)


def inherited_network(
    strategy: OneShotStrategy, search: OneShotSearch, architecture: CellArchitecture, images: FitnessImages
) -> nn.Module | None:
    """Return the network of an architecture with inherited weights and statistics of its own, in eval mode, or None."""
    network = strategy.inherited(search, architecture)
    if network is None:
        return None
    from robust_nas.nets import channels_last
    from robust_nas.nets.inherited import estimate_statistics

    network = channels_last(network)
    estimate_statistics(network, images.calibration, images.batch_size)
    return network


def dropped_weight(
    space: CellSpace, architecture: CellArchitecture, edge_weights: Mapping[str, Tensor]
) -> float:
    """Return the share of all edge weight that is not in the architecture, the mean over its kinds of cells."""
    dropped = []
    for cell in architecture.genotype:
        rows = edge_weights[cell.kind]
        kept = sum(
            float(rows[space.edges.index((number, source)), space.operations.index(operation)])
            for number, node in enumerate(cell.nodes)
            for operation, source in node
        )
        dropped.append(1 - kept / float(rows.sum()))
    return sum(dropped) / len(dropped)


def _folded(strategy: OneShotStrategy, supernet: nn.Module, images: Images) -> nn.Module | None:
    """Return the folded copy of the supernet where there is one that gives its logits."""
    from robust_nas.attacks.folding import COMPARED, same_logits

    folded = strategy.folded(supernet)
    if folded is None:
        return None
    first = images.float(torch.arange(min(COMPARED, len(images))))
    with attack_mode(supernet):
        return folded if same_logits(folded, supernet, first) else None


def _accuracies(
    network: nn.Module, attack: PGD, images: FitnessImages, folded: nn.Module | None = None
) -> dict[str, float]:
    """Return clean and robust accuracy; the attack works on the folded copy where there is one, the network judges."""
    from robust_nas.attacks import Predictor
    from robust_nas.evaluation import correctness
    from robust_nas.evaluation.accuracy import batch_of, judge

    if folded is not None:
        attack = attack.model_copy(update={"fold": False})  # it is folded already
    judged, predictor = images.judged, Predictor.of(network)
    batches = torch.split(torch.arange(len(judged)), images.batch_size)
    right = torch.cat([judge(predictor, *batch_of(judged, indices)).right for indices in batches])
    clean = int(right.sum())
    if clean == 0:
        return {"clean": 0.0, "robust": 0.0}
    found = correctness(
        network,
        judged.subset(right.nonzero()[:, 0]),  # no other image can be right under attack
        attack,
        images.generator(),
        attacked=folded,
        batch_size=images.batch_size,
    )
    return {"clean": clean / len(judged), "robust": int(found.robust.sum()) / len(judged)}
