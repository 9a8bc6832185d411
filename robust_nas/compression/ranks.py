"""The ranks of all layers at once, under a compression ratio (CSTAR-style: our reconstruction, see `cstar.py`).

Weights of a layer in factors: Tucker-2 C r_in + r_in r_out K1 K2 + r_out M, low-rank r (C + M). From full ranks on, the
cut with the smallest -log(kept energy after / before) for the weights that it frees is made, until all layers together
have 1 / ratio of their weights; energy is a spectrum's share of ||W||^2. The logarithm, because a signal passes one
layer after the other: sums of lost shares cut single layers to rank 1 (measured, see the docs). A layer that would have
as many weights in factors stays dense. The ratio counts the weights of all convolutions and linear layers, those that
cannot be factorised too; biases and batch norms are not counted.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robust_nas.compression.layers import Layer
from robust_nas.compression.tucker import Ranks, spectra
from robust_nas.errors import CompressionError, RunError
from robust_nas.lazy import torch
from robust_nas.records import read_json

if TYPE_CHECKING:
    from torch import Tensor

HALVINGS = 50
USUAL = (4.0, 3.0, 2.0, 1.5, 1.2)  # ratios that are advised
TINY = 1e-300


@dataclass(frozen=True)
class Limits:
    """What ranks may be: at least the share `least` of a side, and multiples of `multiple` but for the ends.

    With `skip_ends` the first convolution and the last linear layer have none.
    """

    multiple: int = 1
    least: float = 0.05
    skip_ends: bool = False

    def minimum(self, side: int) -> int:
        """Return the lowest rank of a side."""
        return max(1, math.ceil(self.least * side))

    def upper_bound(self, rank: int, side: int) -> int:
        """Return the largest allowed rank that is lower than `rank`, or the minimum."""
        return max(self.minimum(side), (rank - 1) // self.multiple * self.multiple)


def matrix_shape(layer: Layer) -> Ranks | None:
    """Return the full ranks of a layer, (C, M) or (min(C, M),); None where it cannot be factorised."""
    from robust_nas.layers.inspection import has_hooks

    module = layer.module
    if type(module) is torch.nn.Linear:
        return None if has_hooks(module) else (min(module.weight.shape),)
    if type(module) is not torch.nn.Conv2d or module.groups != 1 or has_hooks(module):
        return None
    if module.kernel_size == (1, 1):
        return (min(module.in_channels, module.out_channels),)
    return (module.in_channels, module.out_channels)


def factor_params(layer: Layer, ranks: Ranks) -> int:
    """Return the weights of a layer in factors of these ranks."""
    outputs, inputs = layer.module.weight.shape[:2]
    if len(ranks) == 1:
        return ranks[0] * (inputs + outputs)
    rank_in, rank_out = ranks
    taps = layer.module.weight[0, 0].numel()
    return inputs * rank_in + rank_in * rank_out * taps + rank_out * outputs


def cost(layers: Sequence[Layer], ranks: Mapping[str, Ranks]) -> int:
    """Return the weights of all layers, each in the cheaper of its two forms."""
    return sum(
        min(layer.params, factor_params(layer, ranks[layer.name])) if layer.name in ranks else layer.params
        for layer in layers
    )


def global_ranks(
    layers: Sequence[Layer],
    ratio: float,
    limits: Limits = Limits(),
    weights: Mapping[str, Tensor] | None = None,
) -> dict[str, Ranks]:
    """Return the ranks of the layers that are factorised; `weights` take the place of the layers' own.

    Raises `CompressionError` for a ratio out of reach.
    """
    full = full_ranks(layers, ratio, limits)
    by_name = {layer.name: layer for layer in layers}
    tails = {}
    for name, top in full.items():
        found = spectra((weights or {}).get(name, by_name[name].module.weight), len(top))
        # lost[r]: energy beyond rank r
        tails[name] = [
            ((s.sum() - s.cumsum(0)) / s.sum().clamp_min(TINY)).clamp_min(0).tolist() for s in found
        ]
    ranks = dict(full)
    budget = sum(layer.params for layer in layers) / ratio
    heap: list[tuple[float, str, int, Ranks]] = []

    def push(name: str) -> None:
        now = ranks[name]
        for mode, rank in enumerate(now):
            lower = limits.upper_bound(rank, full[name][mode])
            if lower == rank:
                continue
            cut = tuple(lower if index == mode else other for index, other in enumerate(now))
            freed = factor_params(by_name[name], now) - factor_params(by_name[name], cut)
            lost = math.log((1 - tails[name][mode][rank - 1]) / max(1 - tails[name][mode][lower - 1], TINY))
            heapq.heappush(heap, (lost / freed, name, mode, now))

    for name in ranks:
        push(name)
    spent = cost(layers, ranks)
    while spent > budget:
        _, name, mode, seen = heapq.heappop(heap)
        if seen != ranks[name]:  # the entry is older than a later cut of the same layer
            continue
        layer = by_name[name]
        before = min(layer.params, factor_params(layer, seen))
        lower = limits.upper_bound(seen[mode], full[name][mode])
        ranks[name] = tuple(lower if index == mode else other for index, other in enumerate(seen))
        spent += min(layer.params, factor_params(layer, ranks[name])) - before
        push(name)
    return _worthwhile(by_name, ranks)


def uniform_ranks(layers: Sequence[Layer], ratio: float, limits: Limits = Limits()) -> dict[str, Ranks]:
    """Return ranks that are the same share of every side, the largest that meets the ratio.

    Raises `CompressionError` as `global_ranks` does.
    """
    full = full_ranks(layers, ratio, limits)
    budget = sum(layer.params for layer in layers) / ratio

    def at(share: float) -> dict[str, Ranks]:
        def rank(side: int) -> int:
            rounded = math.floor(share * side / limits.multiple) * limits.multiple
            return side if share >= 1 else max(limits.minimum(side), rounded)

        return {name: tuple(map(rank, top)) for name, top in full.items()}

    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(layers, at(middle)) <= budget else (low, middle)
    return _worthwhile({layer.name: layer for layer in layers}, at(low))


def refuse_ratio(layers: Sequence[Layer], ratio: float, limits: Limits = Limits()) -> None:
    """Raise `CompressionError` for a ratio out of reach."""
    full_ranks(layers, ratio, limits)


def usual_ratio(layers: Sequence[Layer], limits: Limits = Limits()) -> float | None:
    """Return the largest ratio of `USUAL` that the layers allow; None: none of them."""
    for ratio in USUAL:
        with suppress(CompressionError):
            refuse_ratio(layers, ratio, limits)
            return ratio
    return None


def full_ranks(layers: Sequence[Layer], ratio: float, limits: Limits) -> dict[str, Ranks]:
    """Return the full ranks of the layers that can be factorised.

    Raises `CompressionError` where even the lowest do not meet the ratio.
    """
    convolutions = [layer.name for layer in layers if isinstance(layer.module, torch.nn.Conv2d)]
    linear = [layer.name for layer in layers if isinstance(layer.module, torch.nn.Linear)]
    ends = {*convolutions[:1], *linear[-1:]} if limits.skip_ends else set()
    full = {
        layer.name: top
        for layer in layers
        if (top := matrix_shape(layer)) is not None and layer.name not in ends
    }
    total = sum(layer.params for layer in layers)
    minima = {name: tuple(map(limits.minimum, top)) for name, top in full.items()}
    least = cost(layers, minima)
    if not ratio >= 1 or least > total / ratio:
        raise CompressionError(
            f"ratio: got {ratio:g} of {total:,} weights in {len(layers)} layers; from 1 to {total / least:.4g} can be "
            f"reached with ranks from {limits.least:g} of a side, in the {len(full)} layers that have ranks"
        )
    return full


def _worthwhile(layers: Mapping[str, Layer], ranks: Mapping[str, Ranks]) -> dict[str, Ranks]:
    """Return the ranks without the layers that are no smaller in factors."""
    return {
        name: own for name, own in ranks.items() if factor_params(layers[name], own) < layers[name].params
    }


def stored_ranks(path: Path, state: Mapping[str, Tensor]) -> dict[str, Ranks]:
    """Return the ranks in the `result.json` of a low-rank network with these weights.

    Raise `RunError` where it is damaged.
    """
    ranks = read_json(path, {"ranks": {str: [int, ...]}})["ranks"]
    for name, own in ranks.items():
        if f"{name}.weight" not in state or min(own) < 1:
            raise RunError(f"{path}: is damaged: ranks: {name!r} is no layer with these ranks")
    return {name: tuple(own) for name, own in ranks.items()}
