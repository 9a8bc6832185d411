"""Defences whose adaptive attack fails or does not, and one that certifies, for the tests of their evaluation."""

from types import SimpleNamespace
from typing import ClassVar, Literal

import torch

from robust_nas.defences import Defence
from robust_nas.defences.defended import BeforeNetwork, Defended


class Zeroed(Defence):
    """Nothing but a backward pass of zeros."""

    name: Literal["zeroed"] = "zeroed"

    def build(self, network, values):
        class Module(BeforeNetwork):
            def transformed(self, x):
                return x.detach() + 0 * x

        return Module(network, self, values)


class Shattered(Defence):
    """A ripple that moves no answer, and whose slope drowns the gradient."""

    name: Literal["shattered"] = "shattered"

    def build(self, network, values):
        class Module(BeforeNetwork):
            def transformed(self, x):
                return x + 1e-3 * torch.sin(3e4 * x)

        return Module(network, self, values)


class Noise(Defence):
    """Normal noise in every forward pass."""

    random: ClassVar[bool] = True
    name: Literal["noisy"] = "noisy"

    @property
    def inference_samples(self):
        return 4

    def build(self, network, values):
        class Module(BeforeNetwork):
            def transformed(self, x):
                return x + 0.05 * torch.randn_like(x)

        return Module(network, self, values)


class Certifying(Defence):
    """The network itself, with made-up radii: image i of a batch has the radius i / 10, the first one abstains."""

    certifies: ClassVar[bool] = True
    name: Literal["certifying"] = "certifying"
    norm: str = "l2"

    def build(self, network, values):
        class Module(Defended):
            def forward(self, x):
                return self.module(x)

        return Module(network, self, values)

    def certify(self, defended, images, generator):
        assert not torch.is_grad_enabled()
        classes = defended(images).argmax(1)
        classes[0] = -1
        return SimpleNamespace(classes=classes, radii=torch.arange(len(images)) / 10, norm=self.norm)
