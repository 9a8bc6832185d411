"""Notice a change of what an evaluation must leave alone: by a hash of it all, and cheaply between two hashes.

Tensors and modules that a module keeps in a plain list, tuple, set, dict or attribute are part of it: PyTorch does not
know them, so no `eval()` reaches them, and batch norm among them learns from every batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

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
    for name, tensor in _hidden(model):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


class ModelWatch:
    """Tells whether a model is still as it was when the watch began."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.hash, self._seen = model, fingerprint(model), _identity(model)

    def unchanged(self) -> bool:
        """Return whether no tensor was written or replaced since the last look, or the values are the same again.

        Nothing is read from the device, unless something was written; a write past PyTorch's counters (`.data`) is
        seen by `unchanged_values` alone.
        """
        return _identity(self.model) == self._seen or self.unchanged_values()

    def unchanged_values(self) -> bool:
        """Return whether the hash is as it was."""
        same = fingerprint(self.model) == self.hash
        if same:
            self._seen = _identity(self.model)
        return same


def _identity(model: nn.Module) -> list[object]:
    """Return which tensors a model has, how often each was written, and the modes."""
    found: list[object] = [getattr(module, "training", None) for module in model.modules()]
    for _, parameter in model.named_parameters():
        found += [parameter.requires_grad, None if parameter.grad is None else _place(parameter.grad)]
    tensors = [*model.parameters(), *model.buffers(), *(tensor for _, tensor in _hidden(model))]
    return [*found, *map(_place, tensors)]


def _place(tensor: Tensor) -> tuple[object, ...]:
    """Return what changes where a tensor is replaced or written; its values where PyTorch does not count writes."""
    counted = None if tensor.is_inference() else tensor._version
    return id(tensor), tensor.data_ptr(), counted, None if counted is not None else _bytes(tensor)


def _hidden(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that the modules keep out of PyTorch's sight, those of modules kept so among them."""
    seen = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    seen |= {id(module) for module in model.modules()}
    waiting: list[tuple[str, Any]] = []
    for name, module in model.named_modules():
        waiting += _attributes(name, module)
    while waiting:
        name, value = waiting.pop()
        if id(value) in seen:
            continue
        if isinstance(value, torch.Tensor | torch.nn.Module | Mapping | list | tuple | set):
            seen.add(id(value))
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, torch.nn.Module):
            waiting += _attributes(name, value)
            for inner in (value._parameters, value._buffers, value._modules):
                waiting += [(f"{name}.{key}", each) for key, each in inner.items()]
        elif isinstance(value, Mapping):
            waiting += [(f"{name}.{key}", each) for key, each in value.items()]
        elif isinstance(value, list | tuple | set):
            waiting += [(f"{name}.{place}", each) for place, each in enumerate(value)]


def _attributes(name: str, module: nn.Module) -> list[tuple[str, Any]]:
    """Return the attributes of a module but for those that PyTorch gives to every module."""
    common = vars(torch.nn.Module())
    own = vars(module).items()
    return [(f"{name}.{key}", value) for key, value in own if key not in common]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
