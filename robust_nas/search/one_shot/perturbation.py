"""What the supernet loses without an operation (Wang et al., ICLR 2021, "Rethinking Architecture Selection in DARTS").

    score of operation o on edge e    L(supernet without o on e) - L(supernet)
    score of edge e                   L(supernet without e) - L(supernet)

L is the cross-entropy on attacked images of the alphas' half. Per edge the operation with the highest score is chosen,
then per node the edges. An operation is left out by a weight of zero; the other weights stay as they are. Batch norms
take the statistics of the batch, because the running ones are those of the whole supernet.

What differs from the paper: nothing is fine-tuned between two decisions, and so all scores are taken on the whole
supernet, in the place of one that has the earlier decisions; the loss in the place of the accuracy; adversarial images,
which are made once, against the whole supernet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robust_nas.attacks import attack_mode
from robust_nas.attacks.batch_generator import BatchGenerator
from robust_nas.data import Images
from robust_nas.data.order import batches
from robust_nas.run_folder import Progress, silent
from robust_nas.search.one_shot.batch import Batch
from robust_nas.search.one_shot.derivation import Scores
from robust_nas.search.one_shot.steps import OneShotSearch
from robust_nas.training.loss import cross_entropy

IMAGES = 256  # about as many, in whole batches; our choice


def attacked_batches(search: OneShotSearch, half: Images, batch_size: int, seed: int) -> list[Batch]:
    """Return this rank's rows of the first batches of a half, attacked by draws of `seed` alone."""
    ranks, found = search.ranks, []
    generator = BatchGenerator(half.pixels.device)
    generator.manual_seed(seed)
    order = batches(len(half), batch_size, seed=seed, epoch=0)
    for indices in order[: max(1, IMAGES // batch_size)]:
        part, whole = half.subset(indices), len(indices)
        rows = ranks.rows(whole)
        images = part.float()[rows].contiguous(memory_format=torch.channels_last)
        labels = part.labels[rows]
        generator.whole, generator.rows = whole, rows
        attacked = search.attack(images, labels, generator)
        found.append(Batch(images, attacked, labels, ranks.share(whole), whole))
    return found


@torch.no_grad()
def perturbation_scores(
    search: OneShotSearch, drawn: Sequence[Batch], progress: Progress = silent
) -> dict[str, Scores]:
    """Return the scores of every operation and every edge, per kind, on these batches."""
    supernet: Any = search.supernet
    weights: Mapping[str, Tensor] = supernet.edge_weights()
    edges, choices = len(search.space.edges), len(search.space.operations)
    done, total = 0, edges * len(weights)

    def loss(kind: str, own: Tensor) -> Tensor:
        """Return the mean loss over all ranks' images where `kind` has the weights `own`."""
        losses = []
        for batch in drawn:
            with search.autocast(batch.adversarial):
                logits = supernet.mixed(batch.adversarial, {**weights, kind: own})
            losses.append(batch.share * cross_entropy(logits, batch.labels))
        return search.ranks.all_reduce_sum([torch.stack(losses).mean()])[0]

    found = {}
    with attack_mode(search.supernet, "batch"):
        for kind, own in weights.items():
            whole, operations, whole_edges = loss(kind, own), [], []
            for edge in range(edges):
                operations.append([loss(kind, _without(own, edge, o)) - whole for o in range(choices)])
                whole_edges.append(loss(kind, _without(own, edge, slice(None))) - whole)
                done += 1
                progress("derivation", done, total)
            found[kind] = Scores(
                torch.stack([torch.stack(row) for row in operations]).cpu(), torch.stack(whole_edges).cpu()
            )
    return found


def _without(weights: Tensor, edge: int, operations: int | slice) -> Tensor:
    """Return edge weights `[E, O]` with zeros for these operations of an edge."""
    weights = weights.clone()
    weights[edge, operations] = 0
    return weights
