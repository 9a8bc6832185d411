"""Zero-cost: the sum of the ranks of several proxies, over several draws; by default of params, jacob-cov and synflow.

    score = 1/D sum_d sum_p r(p_d)          r the rank share (0..1) within the candidates, p a proxy
    spread = standard deviation over d of  sum_p r(p_d)

A draw d has weights and images of its own, the same for all candidates: Kaiming normal weights (fan out; He et al.,
2015), and a batch of images that no other draw has. Candidates are built small, by the skeleton of their space, and
without the edges that compute nothing. A proxy of which a lower value is better is ranked the other way round. The rank
sum and its settings are our choice; `docs/how-to/ranking.md` has what was measured.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from robust_nas.config import Count, tree_hash
from robust_nas.errors import ConfigError
from robust_nas.lazy import torch
from robust_nas.search.proxies import PROXIES
from robust_nas.search.proxies.proxy import Proxy
from robust_nas.search.ranking.method import Columns, RankingContext, RankingMethod, reduced
from robust_nas.search.ranking.ranks import Floats, shares_within
from robust_nas.spaces import CellArchitecture
from robust_nas.spaces.live_edges import live

if TYPE_CHECKING:
    from torch import nn

    from robust_nas.data import Images

USUAL = tuple(PROXIES.make(name) for name in ("params", "jacob-cov", "synflow"))


class Values(NamedTuple):
    """What was measured of a candidate: every proxy draw by draw."""

    proxies: dict[str, tuple[float, ...]]
    seconds: float  # of CPU


class ZeroCost(RankingMethod):
    """Ranks by proxies of untrained networks."""

    name: Literal["zero-cost"] = "zero-cost"
    cells_per_stage: Count = 3  # normal cells of a stage
    draws: Count = 3  # of weights and images
    batch_size: Count = 64  # images of a draw
    # whose ranks are summed
    proxies: Annotated[tuple[Annotated[Proxy, PROXIES.field()], ...], Field(min_length=1)] = USUAL

    @model_validator(mode="after")
    def _have_names_of_their_own(self) -> Self:
        labels = [proxy.label for proxy in self.proxies]
        if len(set(labels)) < len(labels):
            raise ValueError(f"proxies names one twice: {', '.join(labels)}")
        return self

    def score(self, candidates: Sequence[CellArchitecture], context: RankingContext) -> Columns:
        """Return the rank sum, its spread over the draws, the mean of every proxy, and CPU seconds."""
        log, found = context.log(self.name), []
        known = dict(log.records)
        batches = self.batches(context.images, context.seed)
        for number, candidate in enumerate(candidates, start=1):
            small = self.sized(candidate)
            key = tree_hash(small.nameless())
            if key not in known:
                values = self.measure(
                    small, batches, context.classes, context.mean, context.std, context.seed
                )
                known[key] = values._asdict()
                log.append(key, known[key])
            found.append(Values(**known[key]))
            context.progress(self.name, number, len(candidates))
        ranked = self.ranked(found)
        return {
            "score": ranked.mean(0).tolist(),
            "spread": spread(ranked),
            **{
                f"proxy_{label.replace('-', '_')}": [float(np.mean(each.proxies[label])) for each in found]
                for label in found[0].proxies
            },
            "cpu_seconds": [each.seconds for each in found],
        }

    def sized(self, candidate: CellArchitecture) -> CellArchitecture:
        """Return a candidate at the size of the ranking, without the edges that compute nothing."""
        return live(super().sized(candidate))

    def batches(self, images: Images, seed: int) -> list[Images]:
        """Return the images of every draw. Raises `ConfigError` where there are too few."""
        small = reduced(images, self.side).draw(self.draws * self.batch_size, seed)
        if len(small) < 2 * self.draws:
            raise ConfigError(
                f"method.draws: got {self.draws} with {len(small)} images; every draw needs 2 images of its own or more"
            )
        return [small.subset(part) for part in torch.arange(len(small)).tensor_split(self.draws)]

    def measure(
        self,
        small: CellArchitecture,
        batches: Sequence[Images],
        classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int,
    ) -> Values:
        """Return the values of a candidate at the size of the ranking; weights follow from the seed and the draw."""
        from robust_nas.nets.build import build_network, channels_last

        began = time.process_time()
        values: dict[str, list[float]] = {proxy.label: [] for proxy in self.proxies}
        for draw, batch in enumerate(batches):
            images = batch.float().contiguous(memory_format=torch.channels_last)
            channels, height, width = images.shape[1:]
            network = build_network(
                small,
                input_shape=(channels, height, width),
                classes=classes,
                mean=mean,
                std=std,
                affine=False,
            )
            _draw_weights(network, torch.Generator().manual_seed(seed * 1000 + draw))
            network = channels_last(network.to(images.device))
            generator = torch.Generator(images.device).manual_seed(seed * 1000 + draw)
            for proxy in self.proxies:
                labels = batch.labels if proxy.needs_labels else None
                values[proxy.label].append(proxy.score(network, images, labels, generator))
        measured = {label: tuple(each) for label, each in values.items()}
        return Values(measured, round(time.process_time() - began, 4))

    def ranked(self, values: Sequence[Values], reference: Sequence[Values] | None = None) -> Floats:
        """Return the rank sum `[D, N]` of every draw, within the candidates or within a reference sample."""
        within = values if reference is None else reference
        total = np.zeros((self.draws, len(values)))
        for proxy in self.proxies:
            sign = 1.0 if proxy.higher_is_better else -1.0
            for draw in range(self.draws):
                own, others = (
                    [sign * each.proxies[proxy.label][draw] for each in group] for group in (values, within)
                )
                total[draw] += shares_within(own, others)
        return total


def _draw_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Draw Kaiming normal weights for convolutions, N(0, 1 / inputs) for linear layers, whose biases are 0."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                o, k = module.out_channels // module.groups, module.kernel_size[0] * module.kernel_size[1]
                weight = torch.randn(module.weight.shape, generator=generator) * (2 / (o * k)) ** 0.5
            elif isinstance(module, torch.nn.Linear):
                weight = torch.randn(module.weight.shape, generator=generator) / module.in_features**0.5
            else:
                continue
            module.weight.copy_(weight)
            if module.bias is not None:
                module.bias.zero_()


def spread(ranked: Floats) -> list[float | None]:
    """Return the standard deviation over the draws of scores `[draws, n]`; None where there is one draw."""
    if len(ranked) == 1:
        return [None] * ranked.shape[1]
    return [float(value) for value in ranked.std(0, ddof=1)]
