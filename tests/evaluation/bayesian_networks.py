"""Networks of random weights whose posterior mean is known: an honest one, and two whose noise masks the gradient."""

import torch
from torch import nn
from torch.func import functional_call


class MeanField(nn.Module):
    """A network whose weights are drawn around the trained ones in every pass, by `sigma` of their own spread."""

    def __init__(self, network, sigma=0.1):
        super().__init__()
        self.network, self.sigma = network, sigma

    def forward(self, x):
        drawn = {
            name: weight + self.sigma * weight.std() * torch.randn_like(weight)
            for name, weight in self.network.named_parameters()
            if weight.dim() > 1
        }
        return functional_call(self.network, drawn, (x,))

    def posterior_mean(self):
        return self.network


class NoisyGradient(MeanField):
    """The answers of the mean network, and its gradient with noise of zero mean: many passes see through it."""

    def forward(self, x):
        return self.network(x) + self._slope(x)

    def _slope(self, x):
        """Nothing, with a random gradient."""
        weights = self.sigma * torch.randn(x[0].numel(), 10)
        return (x - x.detach()).flatten(1) @ weights


class OnlyNoise(NoisyGradient):
    """The answers of the mean network, and a gradient that is noise alone: no number of passes sees through it."""

    def forward(self, x):
        return self.network(x.detach()) + self._slope(x)
