"""How much of every layer stays: one budget for a whole network, by multiply-adds or by error.

With n_l = (K1 K2 + M) H' W' multiply-adds a kernel of layer l, and v_{c,i} of its kernels (see `gdws_layer.py`):

    uniform   the same bound beta of the error in every layer (the published way)
    global    kernels are kept in the order of v / n over all layers: no other choice of kernels with as few
              multiply-adds has less error in all, up to one kernel (our choice: a knapsack on its convex hull)

Either takes a beta, or a target of multiply-adds. A layer whose kernels would cost as much as the dense one stays dense
and has no error; what that frees goes to the others. Which layers stay dense is not searched: where layers are flat
and alike, one of them dense may be better than all of them cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_nas.compression.gdws_layer import counts, fewest, with_minimum
from robust_nas.errors import CompressionError

HALVINGS = 60  # of the interval that beta lies in


@dataclass(frozen=True)
class Site:
    """A layer that may be factorised: v `[C, r]`, multiply-adds of a kernel and of the dense layer."""

    name: str
    v: Tensor
    kernel_macs: int
    dense_macs: int


def uniform(
    sites: Sequence[Site], *, beta: float | None = None, macs: int | None = None, min_kernels: int = 1
) -> dict[str, Tensor]:
    """Return the g `[C]` of every layer that is factorised, with the same bound of the squared error in each.

    `macs` are those of all sites together. Raises `CompressionError` where they are out of reach.
    """
    if macs is None:
        return _by_beta(sites, _bound(beta), min_kernels)
    top = max(float(site.v.sum()) for site in sites)
    if not min_kernels:  # the largest bound at which no layer is emptied
        top = min(float(site.v.sum() - site.v.max()) for site in sites) * (1 - 1e-12)
    if _macs(sites, _by_beta(sites, top, min_kernels)) > macs:
        raise _out_of_reach(sites, macs, _macs(sites, _by_beta(sites, top, min_kernels)))
    low, high = 0.0, top
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _macs(sites, _by_beta(sites, middle, min_kernels)) <= macs:
            high = middle
        else:
            low = middle
    return _by_beta(sites, high, min_kernels)


def _bound(beta: float | None) -> float:
    if beta is None or not beta >= 0:
        raise CompressionError(f"beta: got {beta}; a bound of the squared error from 0 is needed")
    return beta


def _by_beta(sites: Sequence[Site], beta: float, min_kernels: int) -> dict[str, Tensor]:
    """Return the g of LEGO in every layer, without layers that would cost as much as dense."""
    found = {}
    for site in sites:
        g = fewest(site.v, beta, min_kernels)
        if not g.any():
            raise CompressionError(
                f"beta: got {beta:.4g}; no kernel of {site.name} would be kept; its weighted energy is "
                f"{float(site.v.sum()):.4g}; a smaller beta or min_kernels of at least 1 is needed"
            )
        if int(g.sum()) * site.kernel_macs < site.dense_macs:
            found[site.name] = g
    return found


def global_allocation(
    sites: Sequence[Site], *, beta: float | None = None, macs: int | None = None, min_kernels: int = 1
) -> dict[str, Tensor]:
    """Return the g `[C]` of every layer that is factorised: fewest multiply-adds for a total error, or the reverse.

    `macs` are those of all sites together. Raises `CompressionError` where they are out of reach.
    """
    if macs is None:
        _bound(beta)
    active = [site for site in sites if _least(site, min_kernels) < site.dense_macs]
    while active:
        dense = sum(site.dense_macs for site in sites) - sum(site.dense_macs for site in active)
        chosen = _greedy(active, beta, None if macs is None else macs - dense, min_kernels)
        costly = [
            site for site in active if int(chosen[site.name].sum()) * site.kernel_macs >= site.dense_macs
        ]
        if not costly:
            return chosen
        # The worst first: what it frees may spare the others.
        worst = max(
            costly, key=lambda site: int(chosen[site.name].sum()) * site.kernel_macs - site.dense_macs
        )
        active.remove(worst)
    least = sum(min(_least(site, min_kernels), site.dense_macs) for site in sites)
    if macs is not None and sum(site.dense_macs for site in sites) > macs:
        raise _out_of_reach(sites, macs, least)
    return {}


def _least(site: Site, min_kernels: int) -> int:
    """Return the multiply-adds of the kernels that are always kept."""
    return min(min_kernels, site.v.shape[1]) * len(site.v) * site.kernel_macs


def _greedy(
    sites: Sequence[Site], beta: float | None, macs: int | None, min_kernels: int
) -> dict[str, Tensor]:
    """Return the g of every layer: kernels of all layers are kept in the order of error per multiply-add."""
    values = [with_minimum(site.v, min_kernels) for site in sites]
    ratio = torch.cat([(v / site.kernel_macs).T.flatten() for v, site in zip(values, sites, strict=True)])
    flat = torch.cat([v.T.flatten() for v in values])
    cost = torch.cat(
        [torch.full((v.numel(),), site.kernel_macs) for v, site in zip(values, sites, strict=True)]
    )
    order = torch.sort(ratio, descending=True, stable=True).indices
    if macs is not None:
        spent = cost[order].cumsum(0)
        forced = int(ratio.isinf().sum())
        fits = int((spent <= macs).sum())
        if fits < max(forced, 1):
            raise _out_of_reach(sites, macs, int(spent[max(forced, 1) - 1]))
        kept = order[:fits]
    else:
        lost = flat[order].flip(0).cumsum(0)
        kept = order[: len(order) - int((lost <= _bound(beta)).sum())]
    chosen = {}
    start = 0
    for site, v in zip(sites, values, strict=True):
        own = kept[(kept >= start) & (kept < start + v.numel())] - start
        chosen[site.name] = g = counts(v, own)
        if not g.any():
            raise CompressionError(
                f"{site.name}: no kernel would be kept; a larger budget, a smaller beta or min_kernels of 1 "
                "is needed"
            )
        start += v.numel()
    return chosen


def _macs(sites: Sequence[Site], chosen: dict[str, Tensor]) -> int:
    """Return the multiply-adds of all sites."""
    return sum(
        int(chosen[site.name].sum()) * site.kernel_macs if site.name in chosen else site.dense_macs
        for site in sites
    )


def _out_of_reach(sites: Sequence[Site], macs: int, least: int) -> CompressionError:
    return CompressionError(
        f"{macs:,} MACs for {len(sites)} layers that can be factorised are out of reach; at least {least:,} are needed"
    )
