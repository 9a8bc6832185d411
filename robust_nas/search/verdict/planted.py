"""Simulated searches whose answer is known: alphas under Adam that follow noise, or one planted operation an edge.

    g = drift * (1/O - [o is the planted operation]) + noise,  centred over operations as a softmax's gradient is

What thresholds and tests of the verdict are held against. N searches, S seeds, B epochs, C kinds of cells, E edges, O
operations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robust_nas.search.verdict.derivation import allowed
from robust_nas.spaces import CellSpace


def simulate(
    space: CellSpace,
    *,
    searches: int,
    seeds: int = 2,
    epochs: int = 8,
    steps: int = 6,
    drift: float = 0.0,
    common: float = 0.0,
    learning_rate: float = 0.02,
    betas: tuple[float, float] = (0.5, 0.999),
    weight_decay: float = 1e-3,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return edge weights `[N, S, B, C, E, O]` after each epoch of `steps` steps.

    `drift` is the planted gradient in units of the noise of one step; `common` is the share of the noise's variance
    that all edges of a step have in common. The planted operations are any, the same for all seeds of a search.
    """
    generator = np.random.default_rng(seed)
    kinds, edges, operations = len(space.kinds), len(space.edges), len(space.operations)
    shape = (searches, seeds, kinds, edges, operations)
    best = generator.choice(np.flatnonzero(allowed(space)), size=(searches, 1, kinds, edges, 1))
    signal = (drift * (1 / operations - (np.arange(operations) == best))).astype(np.float32)
    alphas: NDArray[Any] = 1e-3 * generator.standard_normal(shape, dtype=np.float32)
    first, second = np.zeros_like(alphas), np.zeros_like(alphas)
    found = []
    for step in range(1, epochs * steps + 1):
        gradient = np.sqrt(1 - common) * generator.standard_normal(shape, dtype=np.float32)
        if common:
            of_all = (searches, seeds, 1, 1, operations)
            gradient += np.sqrt(common) * generator.standard_normal(of_all, dtype=np.float32)
        gradient -= gradient.mean(-1, keepdims=True)
        gradient += signal + weight_decay * alphas
        first += (1 - betas[0]) * (gradient - first)
        second += (1 - betas[1]) * (gradient**2 - second)
        scale = np.sqrt(second / (1 - betas[1] ** step)) + 1e-8
        alphas -= learning_rate * (first / (1 - betas[0] ** step)) / scale
        if step % steps == 0:
            found.append(alphas.astype(np.float64))
    logits = np.stack(found, axis=2)
    return np.asarray(np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)))
