"""Activations that hold parameters and are shared: one module per stage and number of channels, in many places.

The network holds the modules once, as `shared_activations` with keys `stage-channels` (stages from 1), so that a state
names every parameter once. A place holds a `Shared`, which has no parameters of its own.

This file needs torch alone: the plain-Python export carries its text.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Shared(nn.Module):
    """A place of a module that the network holds elsewhere."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.held = (module,)  # in a tuple: no submodule of this one

    def forward(self, x: Tensor) -> Tensor:
        """Return what the shared module gives."""
        result: Tensor = self.held[0](x)
        return result


class ActivationMaker:
    """Makes the activations of a network by `build(channels)`; a module whose `shared` is true is made once a key."""

    def __init__(self, build: Callable[[int], nn.Module]) -> None:
        self.build = build
        self.held: dict[str, nn.Module] = {}

    def __call__(self, stage: int, channels: int) -> nn.Module:
        """Return the module of one place."""
        key = f"{stage}-{channels}"
        if key not in self.held:
            module = self.build(channels)
            if not getattr(module, "shared", False):
                return module
            self.held[key] = module
        return Shared(self.held[key])

    def register(self, network: nn.Module) -> None:
        """Let the network hold the shared modules, where there are any."""
        if self.held:
            network.shared_activations = nn.ModuleDict(self.held)
