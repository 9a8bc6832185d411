"""What proxies share: gradients of an untrained network at the statistics of its batch, the network left as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Let batch norms use the statistics of the batch and autograd record, inside; parameters are frozen."""
    from robust_nas.attacks import attack_mode

    with attack_mode(network, "batch"), torch.enable_grad():
        yield


@contextmanager
def fixed_statistics(network: nn.Module, images: Tensor) -> Iterator[nn.Module]:
    """Return a copy whose batch norms have taken the statistics of the images as constants; parameters are frozen."""
    own = copy.deepcopy(network).eval()
    for module in own.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # the mean over the batches seen, which is one
            module.train()
    with torch.no_grad():
        own(images)
    own.eval().requires_grad_(False)
    with torch.enable_grad():
        yield own


def gradient(total: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of a number with respect to `x`; zeros where it does not depend on it."""
    if not total.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(total, x, materialize_grads=True)
    return found


def input_gradient(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return [B, C, H, W]: the gradient of the summed cross-entropy with respect to each image."""
    with batch_statistics(network):
        x = images.detach().clone().requires_grad_()
        return gradient(torch.nn.functional.cross_entropy(network(x), labels, reduction="sum"), x)


def weight_gradients(network: nn.Module, images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return every weight and the gradient of the mean cross-entropy; those of biases and norms are left out.

    A weight that the logits do not depend on has the gradient 0.
    """
    with batch_statistics(network):  # which restores what is set here
        weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
        for weight in weights:
            weight.requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return [(weight.detach(), each) for weight, each in zip(weights, found, strict=True)]
