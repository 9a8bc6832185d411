"""Training with the noise layers of a random self-ensemble (Liu, Cheng, Zhang and Hsieh, ECCV 2018).

    L(f_e, x, y),   f_e: the network with z + s e before each convolution, s = std_init before the first, else std_inner

e is drawn in every forward pass of a step, those of an inner attack included, from the generator of the training: an
adversarial loss attacks the network with its noise, a draw at a time. The layers are there during steps alone;
validation, and with it the kept epoch, is of the network without noise, as is what other hooks measure.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.config import NonNegative
from robust_nas.errors import ConfigError
from robust_nas.lazy import torch
from robust_nas.training.context import Batch, TrainingContext
from robust_nas.training.hook import HookOptions, TrainingHook

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.spaces import Architecture


class NoiseLayers(HookOptions):
    """Noise before every convolution in training, as the defence `rse` has it (Liu et al., 2018)."""

    needs_end: ClassVar[bool] = False

    name: Literal["noise-layers"] = "noise-layers"
    std_init: NonNegative = 0.2  # standard deviation before the first convolution
    std_inner: NonNegative = 0.1  # standard deviation before the others

    def refuse_architecture(self, architecture: Architecture | type[Architecture]) -> None:
        """Raise `ConfigError` for a network without convolutions; of a family nothing is known."""
        if isinstance(architecture, type):
            return
        from robust_nas.layers.noise_layers import noise_layers
        from robust_nas.nets import build_network

        with torch.device("meta"):
            network = build_network(architecture)
        noise_layers(network, self.std_init, self.std_inner, torch.randn_like, "hook noise-layers")

    def start(self, training: TrainingContext) -> TrainingHook:
        """Return the hook at the begin of a training. Raises `ConfigError` for several ranks."""
        if training.ranks.count > 1:
            raise ConfigError(
                f"training.hooks: noise-layers: got {training.ranks.count} ranks; its noise is drawn for what a "
                "convolution of one process gets; start it without torchrun"
            )
        return ConvolutionNoise(self, training)


class ConvolutionNoise(TrainingHook):
    """The hook in its running form; its draws are those of the training, and it has no state."""

    def __init__(self, options: NoiseLayers, training: TrainingContext) -> None:
        self.options, self.training = options, training
        self.layers = contextlib.ExitStack()
        self._noise()  # refuses a network without convolutions

    def _noise(self) -> contextlib.AbstractContextManager[None]:
        from robust_nas.layers.cuts import changed_inputs
        from robust_nas.layers.noise_layers import noise_layers

        options, network = self.options, self.training.network
        key = "training.hooks: noise-layers"
        return changed_inputs(noise_layers(network, options.std_init, options.std_inner, self._draw, key))

    def _draw(self, z: Tensor) -> Tensor:
        generator = self.training.generator
        return torch.randn(z.shape, generator=generator, device=generator.device, dtype=z.dtype).to(z.device)

    def before_step(self, batch: Batch) -> None:
        """Put the layers in."""
        self.layers.enter_context(self._noise())

    def after_backward(self) -> None:
        """Take them out."""
        self.layers.close()
