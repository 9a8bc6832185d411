"""Whether a module's tensors have values: a lazy parameter has none before its first batch, the meta device never."""

from __future__ import annotations

from itertools import chain

from torch import nn
from torch.nn.parameter import is_lazy


def without_values(network: nn.Module) -> str:
    """Return which tensor of a network has no values, and what to do about it; empty where all have some."""
    for key, tensor in chain(network.named_parameters(), network.named_buffers()):
        if is_lazy(tensor):
            return f"{key} has no shape yet; give the model a batch before it is used"
        if tensor.is_meta:
            return f"{key} is on the meta device and has no values; build the model on a real device"
    return ""
