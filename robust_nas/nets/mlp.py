"""A multilayer perceptron: the flattened image through hidden layers of one width, and a linear classifier.

Weights start normal with variance gain / fan-in, biases at zero; the gain of a hidden layer is 2 (`he-fan-in`) or 1
(`lecun`), the classifier's 1 with both. `ntk` computes at first what `he-fan-in` computes: its weights start with
variance 1, and the forward pass holds the factor sqrt(gain / fan-in). A gradient step then moves what a layer computes
by that factor squared less (the parametrisation of neural tangent kernels; this form of it is our definition).

Images are float `[B, C, H, W]` in 0..1. This file needs torch, layers and `ACTIVATIONS` alone: the
plain-Python export carries their text.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from robust_nas.layers.normalise import Normalise
from robust_nas.operations import ACTIVATIONS


class ScaledLinear(nn.Linear):
    """A linear layer whose weights are multiplied by `scale` on use."""

    scale = 1.0

    def forward(self, input: Tensor) -> Tensor:
        """Return `[B, out]` of `[B, in]`."""
        return F.linear(self.scale * input, self.weight, self.bias)


class MLPNetwork(nn.Module):
    """Hidden layers and classifier; `forward` gives logits `[B, classes]`."""

    def __init__(
        self,
        inputs: int,
        depth: int,
        width: int,
        classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        activation: str = "relu",
        initialisation: str = "he-fan-in",
    ) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        ntk = initialisation == "ntk"
        layer = ScaledLinear if ntk else nn.Linear
        self.hidden = nn.ModuleList(layer(width if index else inputs, width) for index in range(depth))
        self.activations = nn.ModuleList(ACTIVATIONS.get(activation).build(width) for _ in range(depth))
        self.classifier = layer(width, classes)
        for module in (*self.hidden, self.classifier):
            gain = 1 if initialisation == "lecun" or module is self.classifier else 2
            scale = (gain / module.in_features) ** 0.5
            if ntk:
                module.scale = scale
            nn.init.normal_(module.weight, std=1.0 if ntk else scale)
            nn.init.zeros_(module.bias)

    def staged(self, x: Tensor) -> list[Tensor]:
        """Return the output `[B, width]` of every hidden layer for images `[B, C, H, W]` in 0..1, and the logits."""
        x = self.normalise(x).flatten(1)
        outputs: list[Tensor] = []
        for layer, activation in zip(self.hidden, self.activations, strict=True):
            x = activation(layer(x))
            outputs.append(x)
        return [*outputs, self.classifier(x)]

    def latent_layers(self) -> list[str]:
        """Return the names of the layers at which the network can be cut (`layers/cuts.py`), the default last."""
        return [*(f"activations.{number}" for number in range(len(self.hidden))), "features"]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, classes]` of images `[B, C, H, W]` in 0..1."""
        return self.staged(x)[-1]
