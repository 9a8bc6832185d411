"""Evidence of searches, made up or simulated, for the tests of the verdict."""

import numpy as np

from robust_nas.search import DSARA, SearchEvidence, SeedEvidence
from robust_nas.search.verdict.derivation import Cells, derive
from robust_nas.search.verdict.planted import simulate
from robust_nas.spaces import Edge, load_space

SPACE = load_space("dsara")
STEPS = 6
HEALTHY = {
    "images": 256,
    "classes": 10,
    "chance": 0.12,
    "attack": "pgd, 10 steps, linf eps 0.1",
    "supernet": {"clean": 0.9, "robust": 0.5},
    "derived": {"clean": 0.8, "robust": 0.4},
    "dropped_weight": 0.7,
    "rank_correlation": None,
}


def architecture(cells: Cells, space=SPACE, number=()):
    """Return an architecture of derived cells."""
    genotype = {}
    for place, kind in enumerate(space.kinds):
        nodes = [[] for _ in range(space.nodes)]
        for edge, (node, source) in enumerate(space.edges):
            if cells.kept[(*number, place, edge)]:
                operation = space.operations[cells.operations[(*number, place, edge)]]
                nodes[node].append(Edge(operation, source))
        genotype[kind] = nodes
    return space.architecture("found", genotype)


def records(weights, space=SPACE, steps=STEPS, **columns):
    """Return the records of a search with edge weights `[B, C, E, O]` after its epochs."""
    found = []
    total = len(weights) * steps
    for step in range(total):
        epoch = step // steps
        part = step / total
        record = {
            "epoch": epoch,
            "step": step,
            "stage": 2,
            "loss_weights": 2.3 - 1.2 * min(1.0, 2 * part) + 0.01 * (step % 3),
            "loss_natural": 0.5,
            "loss_adversarial": 2.3 - 1.1 * min(1.0, 2 * part) + 0.01 * (step % 2),
            "gamma": 0.5,
            "norm_natural": 1.0,
            "norm_adversarial": 2.0,
            "entropy": dict.fromkeys(space.kinds, 1.5 if step else 1.94),
            **{key: value(step) if callable(value) else value for key, value in columns.items()},
        }
        if (step + 1) % steps == 0:
            record["edge_weights"] = {
                kind: weights[epoch, place].round(6).tolist() for place, kind in enumerate(space.kinds)
            }
        found.append(record)
    return found


def controls(effect, low, high, verdict="RELIABLE"):
    """Return the content of a `controls.json`."""
    difference = {"effect": effect, "interval": [low, high], "includes_seeds": True}
    row = {"label": "random-0", "group": "random", "verdict": verdict}
    return {"controls": 3, "networks": [row], "difference": {"clean": difference, "robust": difference}}


BETTER = controls(0.04, 0.01, 0.07)


def evidence(weights, *, space=SPACE, fitness=HEALTHY, controls=BETTER, strategy=None, cells=None, **columns):
    """Return the evidence of searches with edge weights `[S, B, C, E, O]`."""
    seeds = []
    for seed, own in enumerate(weights):
        found = derive(own[-1], space) if cells is None else cells
        result = {"loss_adversarial": 1.2 + seed, "fitness": fitness}
        one = SeedEvidence(
            seed=seed,
            architecture=architecture(found, space),
            records=records(own, space, **columns),
            result=result,
        )
        seeds.append(one)
    strategy = strategy or DSARA()
    return SearchEvidence(
        strategy=strategy,
        space=space,
        classes=10,
        seeds=seeds,
        controls=controls,
        add_controls="robust-nas search --resume found search.controls=3",
    )


def one_search(drift=1.0, seeds=2, seed=0, space=SPACE, epochs=8):
    """Return edge weights `[S, B, C, E, O]` of a search with a planted operation on every edge."""
    return simulate(space, searches=1, seeds=seeds, epochs=epochs, steps=STEPS, drift=drift, seed=seed)[0]


def with_operation(weights, name, share=1.0, space=SPACE):
    """Return weights that end with an operation on a share of the edges of every kind."""
    changed = np.array(weights)
    place = space.operations.index(name)
    count = round(share * len(space.edges))
    changed[..., :count, :] *= 1e-3
    changed[..., :count, place] = 0.9
    return changed
