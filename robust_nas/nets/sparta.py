"""Activations in the place of those of a model, and the transfer of shared ones from one network to another.

    state = extract_sparta(network)    # trained with `activation: sparta`, or after `replace_activations`
    load_sparta(other, state)          # frozen there

Keys are `stage-channels.parameter` (`layers/shared_activations.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.errors import ArchitectureError
from robust_nas.layers.factorised import replace_module
from robust_nas.layers.shared_activations import ActivationMaker
from robust_nas.operations import ACTIVATIONS

REPLACED = (nn.ReLU, nn.SiLU, nn.GELU, nn.Softplus)


def replace_activations(
    model: nn.Module,
    images: Tensor,
    activation: str = "sparta",
    kinds: tuple[type[nn.Module], ...] = REPLACED,
) -> list[str]:
    """Put an activation in the place of all modules of these kinds, in the model itself; return their names.

    One pass of `images` `[B, C, H, W]` in eval mode says how many channels each of them sees. What sees no maps is left
    as it is. A stage, in the keys of shared activations, is the maps of one height and width, counted from 1 from the
    largest on. Raises `ArchitectureError` where there is no such module, where one sees maps of different channels or
    sizes, and where the model has shared activations already.
    """
    if hasattr(model, "shared_activations"):
        raise ArchitectureError(f"{type(model).__name__}: has shared activations already")
    seen = _shapes(model, images, kinds)
    if not seen:
        raise ArchitectureError(
            f"{type(model).__name__}: none of its modules is {' or '.join(kind.__name__ for kind in kinds)} on maps "
            "[B, C, H, W]; activations that are called as functions cannot be replaced"
        )
    for name, (_, shapes) in seen.items():
        if len(shapes) > 1:
            listed = ", ".join("x".join(map(str, shape)) for shape in sorted(shapes))
            raise ArchitectureError(
                f"{name}: is one activation for maps of {listed}; give every place its own"
            )
    sizes = sorted({shape[1:] for _, (shape,) in seen.values()}, key=lambda size: (-size[0] * size[1], size))
    make = ActivationMaker(ACTIVATIONS.get(activation).build)
    place = next(model.parameters(), images)
    for module, ((channels, *size),) in seen.values():
        replace_module(model, module, make(sizes.index(tuple(size)) + 1, channels).to(place))
    make.register(model)
    return list(seen)


def _shapes(
    model: nn.Module, images: Tensor, kinds: tuple[type[nn.Module], ...]
) -> dict[str, tuple[nn.Module, set[tuple[int, ...]]]]:
    """Return the modules of these kinds that see maps, by name, and the shapes (C, H, W) that they see."""
    names = {module: name for name, module in model.named_modules() if isinstance(module, kinds)}
    seen: dict[str, tuple[nn.Module, set[tuple[int, ...]]]] = {}

    def note(module: nn.Module, inputs: Any) -> None:
        if inputs[0].dim() == 4:
            seen.setdefault(names[module], (module, set()))[1].add(tuple(inputs[0].shape[1:]))

    handles = [module.register_forward_pre_hook(note) for module in names]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    return seen


def extract_sparta(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the parameters of all shared activations, `stage-channels.parameter`.

    Raises `ArchitectureError` for a model without any.
    """
    return {key: tensor.detach().clone() for key, tensor in _held(model).state_dict().items()}


def load_sparta(model: nn.Module, state: Mapping[str, Tensor], freeze: bool = True) -> None:
    """Take over the parameters of shared activations; with `freeze` they want no gradient from now on.

    Raises `ArchitectureError`, which names both sets, where the keys or shapes are not those of the model.
    """
    held = _held(model)
    own = held.state_dict()
    refuse_other_keys(own, state, type(model).__name__)
    for key, tensor in own.items():
        if tensor.shape != state[key].shape:
            raise ArchitectureError(
                f"{key}: has shape {list(state[key].shape)}, {list(tensor.shape)} is needed"
            )
    held.load_state_dict(dict(state))
    if freeze:
        held.requires_grad_(False)


def refuse_other_keys(own: Iterable[str], given: Iterable[str], what: str) -> None:
    """Raise `ArchitectureError` unless both sets of keys are the same."""
    if set(own) != set(given):
        raise ArchitectureError(
            f"the shared activations do not fit: given are those of {_listed(given)}; {what} has {_listed(own)}"
        )


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(sorted(keys)) or "none"


def _held(model: nn.Module) -> nn.ModuleDict:
    held = getattr(model, "shared_activations", None)
    if held is None:
        raise ArchitectureError(
            f"{type(model).__name__}: has no shared activations; a network with activation sparta has"
        )
    return held  # type: ignore[no-any-return]
