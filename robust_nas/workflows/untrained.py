"""The network that a training of a job begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_nas.spaces import Architecture
from robust_nas.training import Training

if TYPE_CHECKING:
    from torch import nn

    from robust_nas.workflows.context import JobContext


def untrained_network(
    architecture: Architecture, training: Training, context: JobContext, seed: int
) -> nn.Module:
    """Return the network of an architecture for the images of a job, on its device, with weights drawn by the seed."""
    from robust_nas.nets import build_network

    mean, std = context.normalisation
    network = build_network(
        architecture,
        input_shape=context.dataset.shape,
        classes=context.dataset.classes,
        mean=mean,
        std=std,
        auxiliary=training.auxiliary_weight > 0,
        seed=seed,
    )
    return network.to(context.device)
