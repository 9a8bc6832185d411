"""The convolutions and linear layers of any torch module, and what each costs on an input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robust_nas.errors import CompressionError
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer: its dotted name, and the output pixels of all its calls for one image.

    A layer that is used in several places has the first of its names, and the pixels of all of them. A linear layer on
    `[B, features]` has one pixel.
    """

    name: str
    module: nn.Conv2d | nn.Linear
    pixels: int
    takes: tuple[int, ...]  # shape of the first call's input, for a batch of one

    @property
    def params(self) -> int:
        """Return the number of weights; the bias, which every form keeps, is not counted."""
        return self.module.weight.numel()

    @property
    def macs(self) -> int:
        """Return the multiply-adds for one image."""
        return self.params * self.pixels


def survey(network: nn.Module, input_shape: tuple[int, int, int]) -> list[Layer]:
    """Return every convolution and linear layer that one image of `input_shape` (C, H, W) passes, by first use.

    The network is run once, in eval mode on zeros, and is left as it was. Layers of an auxiliary head, which only
    training meets, are not passed. Raises `CompressionError` where the module does not take such an image, or passes
    none.
    """
    names = {id(module): name for name, module in network.named_modules()}
    pixels: dict[int, int] = {}
    modules: dict[int, Any] = {}

    takes: dict[int, tuple[int, ...]] = {}

    def meet(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        seen = (
            output[0].numel() // output.shape[1]
            if isinstance(module, torch.nn.Conv2d)
            else output[0].numel() // output.shape[-1]
        )
        modules[id(module)] = module
        takes.setdefault(id(module), tuple(given[0].shape))
        pixels[id(module)] = pixels.get(id(module), 0) + seen

    hooks = [
        module.register_forward_hook(meet)
        for module in network.modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    ]
    modes = {module: module.training for module in network.modules()}
    some = next(network.parameters(), torch.zeros(0))
    try:
        network.eval()
        with torch.no_grad():
            network(torch.zeros(1, *input_shape, dtype=some.dtype, device=some.device))
    except Exception as error:  # whatever a foreign module raises
        raise CompressionError(f"the module does not take an image of {input_shape}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    if not modules:
        raise CompressionError(
            f"{type(network).__name__}: holds no convolution and no linear layer to compress"
        )
    if isinstance(network, torch.nn.Conv2d | torch.nn.Linear):
        raise CompressionError(
            f"{type(network).__name__}: is a layer itself; a module that holds it is needed, such as nn.Sequential"
        )
    return [Layer(names[key], module, pixels[key], takes[key]) for key, module in modules.items()]
