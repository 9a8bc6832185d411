"""Random self-ensemble (Liu, Cheng, Zhang and Hsieh, ECCV 2018): noise layers before the convolutions, and many draws.

    f_e(x): the network with z + s e before each convolution,  s = std_init before the first one, else std_inner
    p(x) = 1/S sum_i softmax f_{e_i}(x),   e_i ~ N(0, I)       S = `samples` forward passes

Noise is drawn in eval mode too; the network is trained with the same layers (hook `noise-layers`). The paper's text was
not available: the standard deviations are those of the statisticians' review of defences (CIFAR 0.2 and 0.1, MNIST 0.8
and 0.4), S = 10 is the authors' from memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from robust_nas.config import NonNegative
from robust_nas.defences.defence import RandomDefence
from robust_nas.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.defences.defended import Defended
    from robust_nas.layers.cuts import Change


class RSE(RandomDefence):
    """Noise layers before all convolutions, and the mean softmax of `samples` forward passes.

    Noise is in units of what the layer gets: the first one of a network that normalises gets normalised pixels.
    """

    trained_with: ClassVar[str] = "the hook noise-layers with the same noise"

    name: Literal["rse"] = "rse"
    std_init: NonNegative = 0.2  # standard deviation before the first convolution
    std_inner: NonNegative = 0.1  # standard deviation before the others

    def build(self, network: nn.Module, values: Mapping[str, float]) -> Defended:
        """Return the network with noise layers. Raises `ConfigError` where it has no convolutions."""
        from robust_nas.defences.defended import Defended
        from robust_nas.layers.noise_layers import noise_layers, with_changed_inputs

        class SelfEnsemble(Defended):
            def forward(self, x: Tensor) -> Tensor:
                # A tree of this pass alone: the undefended network, which is attacked too, never has the layers.
                logits: Tensor = with_changed_inputs(self.module, layers(self.module))(x)
                return logits

        def layers(module: nn.Module) -> dict[tuple[nn.Module, int], Change]:
            return noise_layers(
                module, self.std_init, self.std_inner, torch.randn_like, f"defence {self.label}"
            )

        layers(network)  # refuses a network without convolutions
        return SelfEnsemble(network, self, values)
