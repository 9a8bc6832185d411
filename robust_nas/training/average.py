"""The moving average of a network's weights, which is then the model that is validated and kept.

a_n = d a_{n-1} + (1 - d) w_n,   d = min(decay, (1 + n) / (10 + n)),   so that the start is forgotten
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Return the average of a network at its start, buffers included."""

    def updates() -> int:
        return int(average.n_averaged)  # lives on the host

    average = AveragedModel(network, multi_avg_fn=exponential(decay, updates), use_buffers=True)
    return average


def exponential(decay: float, count: Callable[[], int]) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Return the average's update, with decay min(d, (1 + n) / (10 + n)) after n updates.

    n is asked of the host by `count`: torch hands over a copy on the device, which would have to be waited for.
    """

    @torch.no_grad()
    def update(averages: Tensors, values: Tensors, _: Tensor | int) -> None:
        updates = count()
        weight = 1 - min(decay, (1 + updates) / (10 + updates))
        if averages[0].is_floating_point():  # torch hands over tensors of one device and dtype
            torch._foreach_lerp_(averages, values, weight)
        else:
            torch._foreach_copy_(averages, values)

    return update
