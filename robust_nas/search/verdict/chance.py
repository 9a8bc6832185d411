"""What noise gives: null distributions by simulation, each with the seed of `thresholds.py`.

    agreement   searches that share nothing: every edge has any operation, every node any of its sources
    margin      the search's own increments with random signs, one sign a block for all edges and operations together:
                exact where increments are independent and symmetric, whatever their sizes, and whatever the edges and
                operations have in common
    last part   walks without a drift, whose blocks are as large as the search's

S seeds, R draws, B blocks, C kinds of cells, E edges of a cell, O operations.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robust_nas.search.verdict.derivation import Cells, allowed, derive, keep, shared
from robust_nas.search.verdict.thresholds import DRAWS, FLIPS, LEVEL, SEED, WALKS
from robust_nas.spaces import CellSpace

Floats = NDArray[np.float64]


class Chance(NamedTuple):
    """What noise gives: its mean, its one-sided 95 % bound, and the share of draws that reach the observed value."""

    mean: float
    bound: float
    p: float

    @property
    def exceeded(self) -> bool:
        """Return whether the observed value is above chance."""
        return self.p <= LEVEL

    @staticmethod
    def of(observed: float, draws: Floats) -> Chance:
        """Return the place of a value among draws; the value itself counts as one of them."""
        reached = int((draws >= observed - 1e-9).sum())
        return Chance(
            float(draws.mean()), float(np.quantile(draws, 1 - LEVEL)), (1 + reached) / (1 + len(draws))
        )

    def words(self, form: str = "{:.0%}") -> str:
        """Return mean and bound in words."""
        return f"chance {form.format(self.mean)}, at most {form.format(self.bound)}"


class Agreement(NamedTuple):
    """Means over pairs of searches: share of kept edges, of all arg max operations, overlap of operation shares."""

    edges: Floats
    choices: Floats
    shares: Floats


def agreement(found: Cells, space: CellSpace) -> Agreement:
    """Return how far searches `[..., S, C, E]` agree."""
    pairs = list(combinations(range(found.kept.shape[-3]), 2))
    counts = np.stack(
        [(found.kept & (found.operations == number)).sum(-1) for number in range(len(space.operations))], -1
    )  # [..., S, C, O]
    shares = counts / counts.sum(-1, keepdims=True)
    edges, choices, overlap = [], [], []
    for i, j in pairs:
        a, b = (Cells(found.operations[..., k, :, :], found.kept[..., k, :, :]) for k in (i, j))
        edges.append(shared(a, b))
        choices.append((a.operations == b.operations).mean((-2, -1)))
        overlap.append(np.minimum(shares[..., i, :, :], shares[..., j, :, :]).sum(-1).mean(-1))
    return Agreement(*(np.asarray(np.mean(each, 0)) for each in (edges, choices, overlap)))


@lru_cache(maxsize=32)
def agreement_by_chance(space: CellSpace, seeds: int) -> Agreement:
    """Return `[R]` of each measure for searches that share nothing."""
    generator = np.random.default_rng([SEED, seeds])
    shape = (DRAWS, seeds, len(space.kinds), len(space.edges))
    choosable = np.flatnonzero(allowed(space))
    operations = choosable[generator.integers(len(choosable), size=shape)]
    return agreement(Cells(operations, keep(generator.random(shape), space)), space)


def leads(logits: Floats, choosable: NDArray[np.bool_]) -> Floats:
    """Return the lead of the best operation over the next one, `[...]` of logits `[..., O]`."""
    columns = np.moveaxis(logits, -1, 0)[choosable]
    first, second = np.maximum(columns[0], columns[1]), np.minimum(columns[0], columns[1])
    for column in columns[2:]:  # running two largest: a sort would take ten times as long
        second = np.maximum(second, np.minimum(first, column))
        first = np.maximum(first, column)
    return np.asarray(first - second)


def noise(blocks: Floats) -> Floats:
    """Return the standard deviation `[C, E]` that independent increments `[B, C, E, O]` give to their sum."""
    return np.asarray(np.sqrt((blocks**2).sum(0).mean(-1)))


def margins(logits: Floats, blocks: Floats, choosable: NDArray[np.bool_]) -> Floats:
    """Return the lead `[..., C, E]` in units of its edge's noise; 0 where the edge never moved."""
    sigma = noise(blocks)
    return np.asarray(leads(logits, choosable) / np.where(sigma > 0, sigma, np.inf))


def margins_by_chance(blocks: Floats, choosable: NDArray[np.bool_], seed: int) -> Floats:
    """Return margins `[R, C, E]` of increments `[B, C, E, O]` with random signs; other draws for another seed."""
    generator = np.random.default_rng([SEED, seed, 1])
    signs = generator.choice([-1.0, 1.0], size=(FLIPS, len(blocks)))
    by_operation = np.moveaxis(blocks, -1, 1)  # [B, O, C, E]: `leads` reads one operation after the other
    walked = (signs @ by_operation.reshape(len(blocks), -1)).reshape(FLIPS, *by_operation.shape[1:])
    return margins(np.moveaxis(walked, 1, -1), blocks, choosable)


def momentum_factor(momentum: float, steps: int, blocks: int) -> float:
    """Return by how much Adam's momentum inflates the noise of a sum of blocks over that of independent ones.

    With b the momentum, the update of n steps of white noise has, but for a factor, the variance

        V(n) = n (1 + b) / (1 - b) - 2 b (1 - b^n) / (1 - b)^2

    and the factor is sqrt(V(B L) / (B V(L))) for B blocks of L steps: our calculation, of an AR(1) process.
    """
    if not 0 < momentum < 1:
        return 1.0
    return math.sqrt(_variance(momentum, blocks * steps) / (blocks * _variance(momentum, steps)))


def neighbours(momentum: float, steps: int) -> float:
    """Return the correlation of two neighbouring blocks of L steps: V(2 L) / (2 V(L)) - 1, with V as above."""
    return momentum_factor(momentum, steps, 2) ** 2 - 1


def _variance(momentum: float, steps: int) -> float:
    lost = 2 * momentum * (1 - momentum**steps) / (1 - momentum) ** 2
    return steps * (1 + momentum) / (1 - momentum) - lost


def kept_by_chance(sizes: Floats, last: int, correlation: float, space: CellSpace, seed: int) -> Floats:
    """Return `[R]`: the share of kept edges that walks without a drift keep over their last blocks.

    `sizes` are the standard deviations `[B, C]` of the blocks' increments, `correlation` is that of neighbours.
    """
    generator = np.random.default_rng([SEED, seed, 2])
    shape = (WALKS, len(space.kinds), len(space.edges), len(space.operations))
    before, after = _deviation(sizes[:-last], correlation), _deviation(sizes[-last:], correlation)
    covariance = correlation * sizes[-last - 1] * sizes[-last]
    slope = covariance / np.maximum(before**2, np.finfo(float).tiny)
    rest = np.sqrt(np.maximum(after**2 - slope * covariance, 0.0))
    then = before[:, None, None] * generator.standard_normal(shape)
    end = (1 + slope)[:, None, None] * then + rest[:, None, None] * generator.standard_normal(shape)
    return shared(derive(_log_softmax(end), space), derive(_log_softmax(then), space))


def _deviation(sizes: Floats, correlation: float) -> Floats:
    """Return the standard deviation `[C]` of the sum of blocks `[B, C]` whose neighbours correlate."""
    return np.sqrt((sizes**2).sum(0) + 2 * correlation * (sizes[:-1] * sizes[1:]).sum(0))


def _log_softmax(logits: Floats) -> Floats:
    return np.asarray(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
