"""A hash of everything that an evaluation must leave alone."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


def fingerprint(model: nn.Module) -> str:
    """Return a hash of everything that an evaluation must leave alone: tensors, gradients, modes, `requires_grad`."""
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        digest.update(f"{name} {getattr(module, 'training', None)}\n".encode())
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {parameter.requires_grad} {parameter.grad is not None}\n".encode())
        if parameter.grad is not None:
            digest.update(_bytes(parameter.grad))
    # Not the state dict, which leaves out buffers that are not saved.
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
