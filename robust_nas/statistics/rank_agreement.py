"""Agreement of scores with the truth on a sample of N architectures.

    spearman, kendall    rank correlations: of all, of the top half, of the top tenth by the truth
    partial              (r_st - r_sc r_tc) / sqrt((1 - r_sc^2) (1 - r_tc^2)): Spearman of score s and truth t given a
                         control c such as params; of all, and of the top half
    regret               the best truth of the sample minus the truth of the first pick by the score, and minus the best
                         truth among its first ten; the mean over all orders of tied scores

The interval is a percentile bootstrap over architectures, whose tops and best are those of each draw. All scores see
the same draws, so differences to the control are paired. In a stratified sample `weights` are the architectures of the
population that one of the sample represents: ranks, tops and correlations are those of the weighted population,
regrets are of the sample.

Kendall's tau is scipy's for more than `MATRIX` architectures of equal weight; scipy has no weighted Spearman or tau-b,
and for few architectures the matrix of pairs is faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from robust_nas.errors import StudyError
from robust_nas.lazy import stats
from robust_nas.statistics.components import Floats

TOPS = {"": 1.0, " top half": 0.5, " top tenth": 0.1}
PARTIAL_TOPS = ("", " top half")
PICKS = {"regret first": 1, "regret ten": 10}
MEASURES = (
    *(f"spearman{top}" for top in TOPS),
    *(f"kendall{top}" for top in TOPS),
    *(f"partial{top}" for top in PARTIAL_TOPS),
    *PICKS,
)
MATRIX = 500  # architectures whose pairs are held as a matrix; of unequal weights all are
LEAST = 3  # architectures that a correlation needs


class Estimate(NamedTuple):
    """A measure and its interval; None where it is not defined, such as a correlation with a constant."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Agreement:
    """The measures of one score, and by how much each is above the control's (paired)."""

    measures: Mapping[str, Estimate]
    ahead: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `--json` prints them."""
        return {
            key: {name: each._asdict() for name, each in found.items()}
            for key, found in (("measures", self.measures), ("ahead_of_control", self.ahead))
        }


def agreements(
    scores: Mapping[str, ArrayLike],
    truth: ArrayLike,
    control: str,
    *,
    weights: ArrayLike | None = None,
    draws: int = 1000,
    confidence: float = 0.95,
    rng: Generator | None = None,
    report: Callable[[int], None] = lambda scores: None,
) -> dict[str, Agreement]:
    """Return the agreement of every score `[N]` with the truth `[N]`; higher is better in both.

    `control` names the score that the others are compared with. `weights` `[N]` are positive. Without `rng` draws start
    from 0. `report` is called with the number of scores done. Raises `StudyError` for other shapes, values that are not
    finite, and less than three architectures.
    """
    t = _finite("truth", truth)
    given = {name: _finite(name, values) for name, values in scores.items()}
    w = np.ones(len(t)) if weights is None else _finite("weights", weights)
    for name, values in {**given, "weights": w}.items():
        if len(values) != len(t):
            raise StudyError(f"{name}: has {len(values)} values; the truth has {len(t)}")
    if len(t) < LEAST or control not in given or w.min() <= 0:
        raise StudyError(
            f"got {len(t)} architectures, control {control!r} and a least weight of {w.min(initial=1):g}; needed: "
            f"{LEAST} architectures, a control among {', '.join(given)}, weights above 0"
        )
    rng = np.random.default_rng(0) if rng is None else rng
    counts = np.vstack([np.ones(len(t)), rng.multinomial(len(t), np.full(len(t), 1 / len(t)), size=draws)])
    found = {}
    for name, values in given.items():
        sample = _Sample(values, t, given[control], w)
        found[name] = np.array([sample.measures(count, name == control) for count in counts])
        report(len(found))
    return {
        name: Agreement(_estimates(values, confidence), _estimates(values - found[control], confidence))
        for name, values in found.items()
    }


class _Sample:
    """One score, the truth and the control, coded once so that a draw costs no sorting."""

    def __init__(self, score: Floats, truth: Floats, control: Floats, weights: Floats) -> None:
        self.score, self.truth, self.weights = score, truth, weights
        self.codes = [np.unique(values, return_inverse=True)[1] for values in (score, truth, control)]
        self.order = np.lexsort((-truth, -score))  # best score first, ties by the truth
        self.pairs = None
        if len(truth) <= MATRIX or np.ptp(weights) > 0:
            self.pairs = _pairs(score, truth), np.abs(_pairs(score, score)), np.abs(_pairs(truth, truth))

    def measures(self, counts: Floats, is_control: bool) -> list[float]:
        """Return `MEASURES` of a draw that has every architecture as often as `counts` says; NaN: not defined."""
        w = counts * self.weights
        level = _ranks(self.codes[1], w) / w.sum()
        spearman, kendall, partial = [], [], []
        for top, share in TOPS.items():
            kept = (counts > 0) & (level > 1 - share)
            inside, codes = w[kept], [code[kept] for code in self.codes]
            ranks = [_ranks(code, inside) for code in codes]
            spearman.append(_correlation(ranks[0], ranks[1], inside))
            kendall.append(self._kendall(kept, counts, w))
            if top in PARTIAL_TOPS:
                others = [_correlation(ranks[number], ranks[2], inside) for number in (0, 1)]
                partial.append(math.nan if is_control else _partial(spearman[-1], *others))
        regrets = [self._regret(counts, picks) for picks in PICKS.values()]
        return [*spearman, *kendall, *partial, *regrets]

    def _kendall(self, kept: NDArray[np.bool_], counts: Floats, weights: Floats) -> float:
        """Return tau-b of the architectures that are kept, each pair weighted by the product of the weights."""
        if np.count_nonzero(kept) < LEAST:
            return math.nan
        if self.pairs is None:
            rows = np.repeat(np.flatnonzero(kept), counts[kept].astype(int))
            return float(stats.kendalltau(self.score[rows], self.truth[rows])[0])
        inside = np.where(kept, weights, 0.0)
        both, x, y = (float(inside @ pairs @ inside) for pairs in self.pairs)
        return both / math.sqrt(x * y) if x * y > 0 else math.nan

    def _regret(self, counts: Floats, picks: int) -> float:
        """Return the best truth minus the mean, over the orders of ties, of the best truth among the first picks."""
        order = self.order[counts[self.order] > 0]
        best, left = -math.inf, picks
        for start, end in _runs(self.score[order]):
            group = np.repeat(self.truth[order[start:end]], counts[order[start:end]].astype(int))
            if len(group) < left:
                best, left = max(best, group[0]), left - len(group)
                continue
            # the best of `left` drawn from the group without replacement is its i-th with probability p[i]
            ways = math.comb(len(group), left)
            p = [math.comb(len(group) - i - 1, left - 1) / ways for i in range(len(group) - left + 1)]
            best = sum(each * max(best, value) for each, value in zip(p, group, strict=False))
            break
        return float(self.truth[order].max() - best)


def _correlation(x: Floats, y: Floats, weights: Floats) -> float:
    """Return the weighted Pearson correlation of `x` and `y` `[N]`, NaN where one is constant; of ranks, Spearman's."""
    if len(x) < LEAST:
        return math.nan
    x, y = x - np.average(x, weights=weights), y - np.average(y, weights=weights)
    scale = math.sqrt(float(weights @ x**2) * float(weights @ y**2))
    return float(np.clip(weights @ (x * y) / scale, -1, 1)) if scale > 0 else math.nan


def _pairs(x: Floats, y: Floats) -> Floats:
    """Return `[N, N]`: 1 for pairs in the same order in both, -1 for the other order, 0 for ties."""
    return np.sign(np.subtract.outer(x, x)) * np.sign(np.subtract.outer(y, y))


def _ranks(codes: Any, weights: Floats) -> Floats:
    """Return the weighted mid-ranks: the weight below a value and half the weight at it."""
    at = np.bincount(codes, weights)
    return np.asarray((np.cumsum(at) - at / 2)[codes])


def _partial(r_st: float, r_sc: float, r_tc: float) -> float:
    left = (1 - r_sc**2) * (1 - r_tc**2)
    return (r_st - r_sc * r_tc) / math.sqrt(left) if left > 1e-12 else math.nan


def _runs(values: Floats) -> list[tuple[int, int]]:
    """Return (first, end) of every run of equal values."""
    cuts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return list(pairwise(cuts))


def _estimates(draws: Floats, confidence: float) -> dict[str, Estimate]:
    """Return the estimates of `[1 + draws, measures]`, whose first row is the sample itself."""
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    found = {}
    for name, values in zip(MEASURES, draws.T, strict=True):
        kept = values[1:][np.isfinite(values[1:])]
        whole = math.isfinite(values[0]) and len(kept) >= confidence * (len(values) - 1) > 0
        low, high = np.quantile(kept, tails) if whole else (None, None)
        found[name] = Estimate(
            float(values[0]) if math.isfinite(values[0]) else None,
            None if low is None else float(low),
            None if high is None else float(high),
        )
    return found


def _finite(name: str, values: ArrayLike) -> Floats:
    found = np.asarray(values, dtype=float)
    if found.ndim != 1 or not np.isfinite(found).all():
        raise StudyError(
            f"{name}: got shape {list(found.shape)}; one finite number an architecture is needed"
        )
    return found


def population_weights(strata: Sequence[int], sizes: Mapping[int, int]) -> Floats:
    """Return the weight of every member of a stratified sample `[N]`: the size of its stratum a member drawn from it.

    Raises `StudyError` for a stratum without a size.
    """
    drawn = np.unique(np.asarray(strata, dtype=int), return_counts=True)
    per = {}
    for stratum, members in zip(*(each.tolist() for each in drawn), strict=True):
        if sizes.get(stratum, 0) < members:
            raise StudyError(f"stratum {stratum}: {members} drawn of {sizes.get(stratum, 0)}")
        per[stratum] = sizes[stratum] / members
    return np.array([per[stratum] for stratum in strata], dtype=float)
