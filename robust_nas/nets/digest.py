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
import sysconfig
from itertools import chain
from pathlib import Path
from types import ModuleType
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

OURS = ("builtins", "torch", "typing", "robust_nas")  # packages whose text is known by their version
STDLIB = sysconfig.get_path("stdlib")

# network -> which tensors it had, how often each was written, and its digest then
_DIGESTS: WeakKeyDictionary[nn.Module, tuple[list[object], str]] = WeakKeyDictionary()


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


def current_digest(network: nn.Module) -> str:
    """Return `model_digest(network)`, computed again only where a tensor of it was replaced or written since."""
    tensors = (*network.parameters(), *network.buffers())
    state: list[object] = [
        (tensor.data_ptr(), object() if tensor.is_inference() else tensor._version) for tensor in tensors
    ]
    known = _DIGESTS.get(network)
    if known is None or known[0] != state:
        known = state, model_digest(network)
        _DIGESTS[network] = known
    return known[1]


def built_digest(network: nn.Module) -> str:
    """Return 16 hex digits of what decides the answers of code that is not ours and is no tensor of a `state_dict`.

    These are the plain values that its modules hold (tensors, arrays, numbers, texts, and lists of them), as they were
    built, and the text of every file that the files of their classes import, of those that are no installed package.
    Empty where all modules are torch's or ours.
    """
    modules = [each for each in network.named_modules() if not all(map(_is_ours, type(each[1]).__mro__))]
    if not modules:
        return ""
    digest = hashlib.sha256()
    usual = vars(nn.Module()).keys()
    for name, module in modules:
        for key in sorted(vars(module).keys() - usual):
            digest.update(f"{name}.{key}=".encode())
            _update(digest, vars(module)[key])
    for text in sorted(_imported_texts({type(module).__module__ for _, module in modules})):
        digest.update(text)
    return digest.hexdigest()[:16]


def _update(digest: hashlib._Hash, value: object) -> None:
    """Add a plain value; what is none adds the name of its type."""
    digest.update(f"{type(value).__qualname__}:".encode())
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode() + _bytes(value))
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    elif isinstance(value, dict):
        for key, each in value.items():
            _update(digest, key)
            _update(digest, each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            _update(digest, each)
    elif isinstance(value, (bool, int, float, complex, str, bytes, np.generic)) or value is None:
        digest.update(f"{value!r}\n".encode())


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in OURS


def _imported_texts(names: set[str]) -> set[bytes]:
    """Return the SHA-256 of the files of these modules, and of those that they import, without installed packages."""
    found: dict[str, bytes] = {}
    while names:
        name = names.pop()
        file = getattr(module := sys.modules.get(name), "__file__", None)
        if name in found or name.partition(".")[0] in OURS or not file or not Path(file).is_file():
            continue
        if {"site-packages", "dist-packages"} & set(Path(file).parts) or file.startswith(STDLIB):
            continue
        found[name] = hashlib.sha256(Path(file).read_bytes()).digest()
        for value in list(vars(module).values()):
            names.add(
                str(value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", ""))
            )
    return set(found.values())


def _foreign_texts(network: nn.Module) -> set[bytes]:
    """Return the SHA-256 of every file that defines a class of these modules and is neither torch's nor ours."""
    names = {base.__module__ for module in network.modules() for base in type(module).__mro__}
    foreign = {name for name in names if name.partition(".")[0] not in OURS}
    files = (getattr(sys.modules.get(name), "__file__", None) for name in foreign)
    return {
        hashlib.sha256(Path(file).read_bytes()).digest() for file in files if file and Path(file).is_file()
    }


def _bytes(tensor: Tensor) -> bytes:
    """Return the values of a tensor, bit for bit, in the order of its shape."""
    values = tensor.detach().cpu().contiguous().reshape(-1)
    return values.view(torch.uint8).numpy().tobytes() if values.numel() else b""
