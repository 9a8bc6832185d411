"""Ways to look robust without being so: each wraps a network whose real accuracy is known."""

import torch
from torch import Tensor, nn


class Around(nn.Module):
    """A network and something wrong with it."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)


class Probabilities(Around):
    """Ends in a softmax."""

    def forward(self, x):
        return self.network(x).softmax(1)


class Quantised(Around):
    """Rounds every pixel to one of a few levels; the gradient of rounding is zero."""

    levels = 4

    def forward(self, x):
        return self.network((x * self.levels).round() / self.levels)


class Noisy(Around):
    """Adds noise to the input and says nothing about it."""

    def __init__(self, network, sigma=0.3):
        super().__init__(network)
        self.sigma = sigma

    def forward(self, x):
        return self.network(x + self.sigma * torch.randn_like(x))


class Detached(Around):
    """Lets no gradient through."""

    def forward(self, x):
        return self.network(x.detach())


class WithoutGrad(Around):
    """Lets no gradient through, by a context manager inside."""

    def forward(self, x):
        with torch.no_grad():
            return self.network(x)


class _Zero(torch.autograd.Function):
    @staticmethod
    def forward(context, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient)


class Zeroed(Around):
    """Has a gradient function, which gives zeros."""

    def forward(self, x):
        return self.network(_Zero.apply(x))


class _Negated(torch.autograd.Function):
    @staticmethod
    def forward(context, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        return -gradient


class Negated(Around):
    """Has a gradient that points the wrong way."""

    def forward(self, x):
        return self.network(_Negated.apply(x))


class Counting(Around):
    """Keeps statistics of what it sees, also in eval mode."""

    def __init__(self, network, *, persistent=True):
        super().__init__(network)
        self.register_buffer("mean", torch.zeros(()), persistent=persistent)

    def forward(self, x):
        self.mean.mul_(0.9).add_(0.1 * x.detach().mean())
        return self.network(x)


class SometimesNaN(Around):
    """Gives NaN for images of which one corner is dark."""

    def forward(self, x):
        logits = self.network(x)
        return logits.masked_fill((x[:, 0, 2:4, 2:4].mean((1, 2)) < 0.3).unsqueeze(1), torch.nan)
