"""The digest of a model: one number for everything that decides its answers.

It covers the names, types and sizes of all modules (layers in factors, activations, a defence around the network), the
text of the files that define modules of a user or a plugin, every parameter and every buffer (the normalisation's mean
and deviation among them), and the facts that the caller adds: the architecture, the source of a user's module. Two
models of one digest give the same logits; the name of a folder, a record of the training or the names of classes change
nothing.
"""

from __future__ import annotations

import hashlib
import json
import sys
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn


def model_digest(network: nn.Module, **facts: object) -> str:
    """Return the SHA-256 of a network and of JSON-able facts about it, 64 hex digits; the network stays as it is."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, module in network.named_modules():
        digest.update(f"{name}={type(module).__qualname__}({module.extra_repr()})\n".encode())
    for text in sorted(_foreign_texts(network)):
        digest.update(text)
    for name, tensor in sorted(chain(network.named_parameters(), network.named_buffers())):
        digest.update(f"{name}:{tensor.dtype}{tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _foreign_texts(network: nn.Module) -> set[bytes]:
    """Return the SHA-256 of every file that defines a class of these modules and is neither torch's nor ours."""
    names = {base.__module__ for module in network.modules() for base in type(module).__mro__}
    foreign = {
        name for name in names if name.partition(".")[0] not in ("builtins", "torch", "typing", "robust_nas")
    }
    files = (getattr(sys.modules.get(name), "__file__", None) for name in foreign)
    return {
        hashlib.sha256(Path(file).read_bytes()).digest() for file in files if file and Path(file).is_file()
    }


def _bytes(tensor: Tensor) -> bytes:
    """Return the values of a tensor, bit for bit, in the order of its shape."""
    values = tensor.detach().cpu().contiguous().reshape(-1)
    return values.view(torch.uint8).numpy().tobytes() if values.numel() else b""
