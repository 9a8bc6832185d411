"""Zero-cost: the sum of three ranks, of parameters, jacobian covariance and synflow, over several draws.

    score = r(params) + 1/D sum_d [r(jacob-cov_d) + r(synflow_d)],      r the rank share (0..1) within the candidates
    spread = standard deviation over d of  r(params) + r(jacob-cov_d) + r(synflow_d)

A draw d has weights and images of its own, the same for all candidates: Kaiming normal weights (fan out; He et al.,
2015), a batch of images without overlap between draws. Candidates are built small, by the skeleton of their space, and
without the edges that compute nothing. The rank sum and its settings are our choice, from measurements on
NAS-RobBench-201; `docs/ranking.md` has them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np

from robust_nas.config import Count, tree_hash
from robust_nas.errors import ConfigError
from robust_nas.lazy import torch
from robust_nas.search.proxies.jacob_cov import JacobCov
from robust_nas.search.proxies.synflow import SynFlow
from robust_nas.search.ranking.method import Columns, RankingContext, RankingMethod, reduced
from robust_nas.search.ranking.ranks import shares_within
from robust_nas.spaces import CellArchitecture, count
from robust_nas.spaces.live_edges import live

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.data import Images


class Values(NamedTuple):
    """What was measured of a candidate: its parameters at the ranking's size, and both proxies draw by draw."""

    params: int
    jacob_cov: tuple[float, ...]
    synflow: tuple[float, ...]
    seconds: float  # of CPU


class ZeroCost(RankingMethod):
    """Ranks by parameters, jacobian covariance and synflow; nothing is trained."""

    cost: ClassVar[str] = "a fraction of a CPU second an architecture"

    name: Literal["zero-cost"] = "zero-cost"
    cells_per_stage: Count = 3
    draws: Count = 3  # of weights and images
    batch_size: Count = 64  # images of a draw

    def score(self, candidates: Sequence[CellArchitecture], context: RankingContext) -> Columns:
        """Return the rank sum, its spread over the draws, the values behind it, and CPU seconds."""
        log, found = context.log(self.name), []
        known = dict(log.records)
        batches = self.batches(context.images, context.seed)
        for number, candidate in enumerate(candidates, start=1):
            small = self.sized(candidate)
            key = tree_hash(small.nameless())
            if key not in known:
                measured = self.measure(
                    small, batches, context.classes, context.mean, context.std, context.seed
                )
                known[key] = measured._asdict()
                log.append(key, known[key])
            found.append(Values(**known[key]))
            context.progress(self.name, number, len(candidates))
        ranked = self.ranked(found)
        return {
            "score": ranked.mean(0).tolist(),
            "spread": ranked.std(0, ddof=min(self.draws - 1, 1)).tolist(),
            "small_params": [float(each.params) for each in found],
            "jacob_cov": [float(np.mean(each.jacob_cov)) for each in found],
            "synflow": [float(np.mean(each.synflow)) for each in found],
            "cpu_seconds": [each.seconds for each in found],
        }

    def sized(self, candidate: CellArchitecture) -> CellArchitecture:
        """Return a candidate at the size of the ranking, without the edges that compute nothing."""
        return live(super().sized(candidate))

    def batches(self, images: Images, seed: int) -> list[Tensor]:
        """Return the images `[B, C, H, W]` in 0..1 of every draw. Raises `ConfigError` where there are too few."""
        small = reduced(images, self.side).draw(self.draws * self.batch_size, seed)
        if len(small) < 2 * self.draws:
            raise ConfigError(
                f"method.draws: got {self.draws} with {len(small)} images; every draw needs 2 images of its own or more"
            )
        return list(small.float().tensor_split(self.draws))

    def measure(
        self,
        small: CellArchitecture,
        batches: Sequence[Tensor],
        classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int,
    ) -> Values:
        """Return the values of a candidate at the size of the ranking; weights follow from the seed and the draw."""
        from robust_nas.nets.build import build_network, channels_last

        began = time.process_time()
        channels, height, width = batches[0].shape[1:]
        shape = (channels, height, width)
        jacob_cov, synflow = [], []
        for draw, images in enumerate(batches):
            network = build_network(
                small, input_shape=shape, classes=classes, mean=mean, std=std, affine=False
            ).to(images.device)
            generator = torch.Generator().manual_seed(seed * 1000 + draw)
            _draw_weights(network, generator)
            synflow.append(SynFlow().score(network, images, None, generator))
            channels_last(network)
            own = images.contiguous(memory_format=torch.channels_last)
            jacob_cov.append(JacobCov().score(network, own, None, generator))
        params = count(small, shape, classes).params
        return Values(params, tuple(jacob_cov), tuple(synflow), round(time.process_time() - began, 4))

    def ranked(self, values: Sequence[Values], reference: Sequence[Values] | None = None) -> np.ndarray:
        """Return the rank sum `[D, N]` of every draw, within the candidates or within a reference sample."""
        within = values if reference is None else reference
        size = shares_within([each.params for each in values], [each.params for each in within])
        sums = [
            size
            + shares_within([each.jacob_cov[d] for each in values], [each.jacob_cov[d] for each in within])
            + shares_within([each.synflow[d] for each in values], [each.synflow[d] for each in within])
            for d in range(self.draws)
        ]
        return np.array(sums)


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
