"""Models whose true robust accuracy is 0, behind masks; and honest networks of several kinds.

The images of the masks are digits in 32 x 32 with the class in a weak pattern of pixels (amplitude .022). A matched
filter reads the pattern, so that eps .03 takes every answer from it, while its clean accuracy is 1. Each mask keeps
its answers, or nearly so, and hides the way.
"""

import functools

import torch
import torch.nn.functional as F
from cases import SMALL_LAYOUT
from evaluation_networks import Images, conv_net, digits, trained
from torch import nn

import robust_nas
from robust_nas import load_space
from robust_nas.attacks import PGD
from robust_nas.spaces import Size
from robust_nas.spaces.sampling import sample

SIDE, AMPLITUDE, EPS = 32, 0.022, 0.03


@functools.cache
def patterned(seed=0):
    """Test images with the class in a pattern, and the patterns `[10, 1, 32, 32]`."""
    draws = torch.Generator().manual_seed(seed)
    patterns = torch.randint(2, (10, 1, SIDE, SIDE), generator=draws).float() * 2 - 1
    test = digits().test
    pixels = F.interpolate(test.pixels.float() / 255, size=(SIDE, SIDE)) * 0.15 + 0.4
    return Images(pixels + AMPLITUDE * patterns[test.labels], test.labels), patterns


def filters(patterns, scale=0.5):
    """A linear model with the patterns as its weights, which ignores a grey level of .45."""
    layer = nn.Linear(SIDE * SIDE, 10)
    with torch.no_grad():
        layer.weight.copy_(scale * patterns.flatten(1))
        layer.bias.copy_(-0.45 * layer.weight.sum(1))
    return nn.Sequential(nn.Flatten(), layer).eval()


def with_gradient_of(value, other):
    """The value of one, with the gradient of another."""
    return value.detach() + other - other.detach()


class Mask(nn.Module):
    """The honest core, another linear model, and what hides the one behind the other."""

    def __init__(self, seed=0):
        super().__init__()
        images, patterns = patterned(seed)
        self.core = filters(patterns)
        draws = torch.Generator().manual_seed(seed + 100)
        self.other = filters(torch.randint(2, patterns.shape, generator=draws).float() * 2 - 1, 2.5)
        self.natural = images.pixels.flatten(1)
        self.wave = torch.randn(SIDE * SIDE, 10, generator=draws) / SIDE

    def near(self, x):
        """Whether an image is near a natural one, `[B, 1]`: an eps of .03 moves by .96 in L2."""
        return torch.cdist(x.detach().flatten(1), self.natural).amin(1, keepdim=True) < 1.2


class Core(Mask):
    def forward(self, x):
        return self.core(x)


class MisleadsNearby(Mask):
    """Another model's gradient near natural images, an honest one elsewhere."""

    def forward(self, x):
        z = self.core(x)
        return torch.where(self.near(x), with_gradient_of(z, self.other(x)), z)


class RoundedLogits(Mask):
    """Logits in steps of 1/8, with a little of another model, which alone has a gradient."""

    def forward(self, x):
        return (self.core(x) * 8).round() / 8 + 0.02 * torch.tanh(self.other(x))


class NaNSoftplus(Mask):
    """A softplus whose unused branch overflows: the gradient of bright pixels is NaN."""

    def forward(self, x):
        u = 200 * x
        return self.core(torch.where(u > 85, u, torch.log1p(torch.exp(u))) / 200)


class WrongWay(Mask):
    """The gradient of a model that answers otherwise, in another scale for every class."""

    def forward(self, x):
        z = self.core(x)
        return with_gradient_of(z, -z * torch.arange(1, 11))


class Chaotic(Mask):
    """A fast wave on the logits: the gradient is right, and of no use at any distance."""

    def forward(self, x):
        return self.core(x) + 2 * torch.sin(3e3 * x.flatten(1) @ self.wave)


class OffGrid(Mask):
    """Honest on images of 8 bits, misleading between them, where attacks go."""

    def forward(self, x):
        z = self.core(x)
        steps = x.detach() * 255
        on_grid = ((steps - steps.round()).abs().flatten(1).amax(1, keepdim=True)) < 1e-3
        return torch.where(on_grid, z, with_gradient_of(z, self.other(x)))


class OnlyForGradients(Mask):
    """Another model as soon as a gradient is asked for."""

    def forward(self, x):
        z = self.core(x)
        return with_gradient_of(z, self.other(x)) if x.requires_grad else z


class OtherAnswersForGradients(Mask):
    """Answers of another model where a gradient is asked for, so that attacks believe in their own success."""

    def forward(self, x):
        return self.other(x) if torch.is_grad_enabled() else self.core(x)


class Levels(Mask):
    """Pixels in 64 levels, with the gradient of another model in the place of none."""

    def forward(self, x):
        return with_gradient_of(self.core((x * 64).round() / 64), self.other(x))


class HalfOfThem(Mask):
    """Misleads on half of the images, by their brightness."""

    def forward(self, x):
        z = self.core(x)
        bright = (x.detach().mean((1, 2, 3)) > self.natural.mean(1).median()).unsqueeze(1)
        return torch.where(bright, with_gradient_of(z, self.other(x)), z)


class AtTheBoundary(Mask):
    """Honest while the margin is large; where it is small, the gradient leads back."""

    def forward(self, x):
        z = self.core(x)
        first, second = z.topk(2, 1).values.unbind(1)
        close = ((first - second) < 4).unsqueeze(1)
        return torch.where(close, with_gradient_of(z, self.other(x)), z)


class Underflow(Mask):
    """A gradient so small that float32 has none of it left."""

    def forward(self, x):
        z = self.core(x)
        return with_gradient_of(z, 1e-30 * self.core(1e-20 * x + (1 - 1e-20) * x.detach()))


class Inverted(Mask):
    """A small gradient of the wrong sign on a quarter of the pixels: right in L2, useless for steps in Linf."""

    def forward(self, x):
        draws = torch.Generator().manual_seed(7)
        inverted = torch.rand(1, 1, SIDE, SIDE, generator=draws) < 0.25
        return with_gradient_of(self.core(x), self.core(x * torch.where(inverted, -1e-3, 1.0)))


class InvertedOnSome(Inverted):
    """The same on a third of the images; the others are truly robust: nearest to their natural image."""

    def forward(self, x):
        nearest = torch.cdist(x.detach().flatten(1), self.natural).argmin(1)
        robust = ((nearest % 3) > 0).unsqueeze(1)
        label = self.core(self.natural[nearest].view_as(x)).argmax(1)
        value = torch.where(robust, self.core(x), super().forward(x))
        return value + 8 * F.one_hot(label, 10) * robust


class Coin(Mask):
    """One of two views by a coin, and nothing said about it."""

    def forward(self, x):
        z = self.core(x)
        return z if torch.rand(()) < 0.5 else with_gradient_of(z + 0.01 * self.other(x), self.other(x))


MASKS = (
    MisleadsNearby,
    RoundedLogits,
    NaNSoftplus,
    WrongWay,
    Chaotic,
    OffGrid,
    OnlyForGradients,
    OtherAnswersForGradients,
    Levels,
    HalfOfThem,
    AtTheBoundary,
    Underflow,
    Inverted,
    InvertedOnSome,
    Coin,
)


def linear(seed):
    """A linear classifier of the digits."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def residual(seed):
    """A small residual network."""
    tiny = robust_nas.ResidualArchitecture(name="tiny", stem=8, depths=(1, 1), widths=(8, 16))
    return robust_nas.build_network(tiny, input_shape=(1, 8, 8), classes=10, seed=seed)


def cell(seed):
    """A small network of random cells."""
    space = load_space("dsara", {"nodes": 2, "layout": SMALL_LAYOUT})
    architecture = sample(space, seed, size=Size(cells=3, channels=2))
    return robust_nas.build_network(architecture, input_shape=(1, 8, 8), classes=10, seed=seed)


# Kind: the network of a seed, the eps of its adversarial training or None, epochs, and the eps of the evaluation.
HONEST = {
    "linear, small eps": (linear, None, 12, 0.02),
    "linear, adversarial": (linear, 0.1, 8, 0.1),
    "convolutional, small eps": (lambda seed: conv_net(seed=seed), None, 4, 0.01),
    "convolutional, adversarial": (lambda seed: conv_net(seed=seed), 0.15, 6, 0.1),
    "convolutional, large eps": (lambda seed: conv_net(seed=seed), 0.3, 6, 0.2),
    "residual, small eps": (residual, None, 4, 0.02),
    "residual, adversarial": (residual, 0.15, 5, 0.1),
    "cell, small eps": (cell, None, 3, 0.02),
    "cell, adversarial": (cell, 0.1, 3, 0.06),
}


def honest(kind, seed):
    """The network of a kind, trained on the digits, and the eps of its evaluation."""
    make, eps, epochs, attacked_with = HONEST[kind]
    attack = None if eps is None else PGD(eps=eps, steps=3, keep="last")
    return trained(digits().train, attack=attack, epochs=epochs, seed=seed, model=make(seed)), attacked_with
